import threading
import time
from functools import partial

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


# Texts


def text(slices, result="done"):
    """A text of so many slices, each of which yields its number."""

    def begin():
        yield from range(slices)
        return result

    return begin


def test_others_are_answered_between_the_slices_of_a_text():
    order, going = [], threading.Event()

    def endless():
        try:
            while True:
                going.set()
                order.append("slice")
                yield
        finally:
            order.append("closed")

    batcher = Batcher(max_queue=4, step=lambda: order.append("step"))
    text = batcher.write(endless)
    assert going.wait(10)
    assert batcher.submit(Kind("double", double), 2).result(10).value == 4
    assert text.cancel(), "a text that has begun can be given up"
    batcher.close()
    assert order[-1] == "closed"
    assert set(zip(order[::2], order[1:-1:2], strict=False)) == {("slice", "step")}


def test_texts_take_turns_and_end_with_their_results():
    told, steps = [], []
    batcher = Batcher(max_queue=16, max_texts=16, step=lambda: steps.append(1))
    futures = [
        batcher.write(text(20, number), partial(lambda number, slice_: told.append((number, slice_)), number))
        for number in range(16)
    ]
    assert [future.result(10).value for future in futures] == list(range(16))
    batcher.close()
    ends = [place for place, (_, slice_) in enumerate(told) if slice_ == 19]
    assert min(ends) >= 16 * 19 - 16 * 16, "none is done long before the others"
    assert len(steps) <= 20 + 16
    for number in range(16):
        assert [slice_ for one, slice_ in told if one == number] == list(range(20))


def test_more_texts_than_are_written_together_wait_and_more_than_may_wait_are_refused(held):
    batcher, go, _, _ = held
    waiting = [batcher.write(text(2)) for _ in range(4)]
    assert batcher.full_of_texts
    assert not batcher.full
    with pytest.raises(OverloadedError, match="4 texts wait"):
        batcher.write(text(1))
    waiting[0].cancel()
    waiting[0] = batcher.write(text(1, "late"))
    go.set()
    assert {future.result(10).value for future in waiting} == {"done", "late"}


def test_a_failure_is_the_texts_own_unless_the_step_fails():
    def broken():
        yield
        raise UnknownError("no such item")

    failing = threading.Event()

    def step():
        if failing.is_set():
            raise MemoryError

    batcher = Batcher(max_queue=4, max_texts=4, step=step)
    good, bad = batcher.write(text(50)), batcher.write(broken)
    with pytest.raises(UnknownError, match="no such item"):
        bad.result(10)
    assert good.result(10).value == "done"
    failing.set()
    with pytest.raises(MemoryError):
        batcher.write(text(50)).result(10)
    failing.clear()
    assert batcher.write(text(1)).result(10).value == "done"
    batcher.close()


def test_where_slices_take_long_requests_are_answered_between_them():
    batcher = Batcher(max_queue=8, max_texts=3, round_s=0.0)
    rank = Kind("rank", lambda values: [done.append("rank") for _ in values])
    done, asked, all_wait = [], [], threading.Event()

    def encoding(name):
        assert all_wait.wait(10)
        yield  # they begin one after another, and then go on together
        done.append(name)
        if name == 0:
            asked.append(batcher.submit(rank, 1))
        yield

    futures = [batcher.write(partial(encoding, name)) for name in range(3)]
    all_wait.set()
    for future in [*futures, *asked]:
        future.result(10)
    batcher.close()
    assert done == [0, "rank", 1, 2]


def test_what_waits_for_its_turn_can_still_be_cancelled_and_is_never_done():
    turn, done = threading.Lock(), []
    batcher = Batcher(max_queue=8, turn=turn)
    kind = Kind("note", lambda values: [done.append(value) for value in values])

    def text():
        done.append("text")
        yield

    with turn:  # as a writer holds it
        futures = [batcher.submit(kind, "work"), batcher.write(text)]
        time.sleep(0.05)  # the worker waits by now
        assert batcher.depth == 1
        assert all(future.cancel() for future in futures)
        last = batcher.submit(kind, "last")
    last.result(10)
    batcher.close()
    assert done == ["last"]
