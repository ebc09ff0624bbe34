import threading

import pytest

from m6rec.errors import ConfigError, DataError, UnknownError
from m6rec.serving.batching import Batcher, Kind, OverloadedError


@pytest.fixture
def held():
    """A batcher whose worker waits: ``begun`` tells that it does, ``go`` lets it on."""
    begun, go = threading.Event(), threading.Event()

    def wait(values):
        begun.set()
        assert go.wait(10)
        return values

    sizes = []
    batcher = Batcher(max_queue=4, measure=lambda kind, size: sizes.append((kind, size)))
    first = batcher.submit(Kind("wait", wait), "first")
    assert begun.wait(10)
    yield batcher, go, sizes, first
    go.set()
    batcher.close()


def double(values):
    for value in values:
        if isinstance(value, Exception):
            raise value
    return [2 * value for value in values]


def test_what_waits_goes_together_and_in_order(held):
    batcher, go, sizes, first = held
    kind = Kind("double", double, max_batch=3)
    futures = [batcher.submit(kind, n) for n in range(4)]
    go.set()
    assert [future.result(10).value for future in futures] == [0, 2, 4, 6]
    assert first.result(10).value == "first"
    assert sizes == [("wait", 1), ("double", 3), ("double", 1)]


def test_the_oldest_kind_is_next_and_others_stay_in_line(held):
    batcher, go, sizes, _ = held
    one, other = Kind("one", double, max_batch=8), Kind("other", double, max_batch=8)
    futures = [batcher.submit(kind, 1) for kind in (one, other, one, other)]
    go.set()
    assert [future.result(10).value for future in futures] == [2] * 4
    assert sizes[1:] == [("one", 2), ("other", 2)]


def test_a_full_queue_refuses_at_once(held):
    batcher, _, _, _ = held
    kind = Kind("double", double)
    for n in range(4):
        batcher.submit(kind, n)
    assert batcher.full
    with pytest.raises(OverloadedError, match="4 requests wait"):
        batcher.submit(kind, 5)


def test_cancelled_work_leaves_the_queue_and_is_never_done(held):
    batcher, go, _, _ = held
    done = []
    kind = Kind("note", lambda values: [done.append(value) for value in values])
    futures = [batcher.submit(kind, n) for n in range(4)]
    assert futures[1].cancel()
    assert batcher.depth == 3
    batcher.submit(kind, 4).add_done_callback(lambda future: None)
    go.set()
    batcher.close()
    assert done == [0, 2, 3, 4]


@pytest.mark.parametrize("error", [DataError, UnknownError, ConfigError])
def test_a_bad_request_does_not_harm_its_neighbours(held, error):
    batcher, go, _, _ = held
    kind = Kind("double", double, max_batch=8)
    good, bad, also_good = (batcher.submit(kind, value) for value in ("a", error("bad"), "b"))
    go.set()
    assert (good.result(10).value, also_good.result(10).value) == ("aa", "bb")
    with pytest.raises(error, match="bad"):
        bad.result(10)


def test_a_failure_reaches_every_request_of_the_batch_and_the_worker_lives_on(held):
    batcher, go, _, _ = held

    def fail(values):
        raise MemoryError

    futures = [batcher.submit(Kind("fail", fail, max_batch=8), n) for n in range(2)]
    go.set()
    for future in futures:
        with pytest.raises(MemoryError):
            future.result(10)
    assert batcher.submit(Kind("double", double), 3).result(10).value == 6
    assert batcher.alive


def test_closing_finishes_what_was_accepted_and_takes_no_more(held):
    batcher, go, _, _ = held
    futures = [batcher.submit(Kind("double", double), n) for n in range(3)]
    threading.Timer(0.05, go.set).start()
    batcher.close()
    assert [future.result(0).value for future in futures] == [0, 2, 4]
    with pytest.raises(OverloadedError, match="stopping"):
        batcher.submit(Kind("double", double), 1)
    assert not batcher.alive


def test_a_result_tells_how_long_it_waited(held):
    batcher, go, _, _ = held
    future = batcher.submit(Kind("double", double), 1)
    threading.Timer(0.05, go.set).start()
    done = future.result(10)
    assert done.queue_ms > 45
    assert 0 <= done.run_ms < done.queue_ms
