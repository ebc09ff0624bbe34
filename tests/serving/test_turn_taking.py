import threading
import time

import pytest

from m6rec.serving.turn_taking import FairLock, slices


def test_a_lock_goes_to_whoever_asked_first():
    lock, order = FairLock(), []

    def ask(number):
        with lock:
            order.append(number)

    others = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    with lock:
        for number, other in enumerate(others):
            other.start()
            until = time.monotonic() + 10
            while len(lock._waiting) <= number:
                assert time.monotonic() < until
                time.sleep(0.001)
    with lock:  # asked for at once, and yet after those who wait
        order.append("again")
    for other in others:
        other.join(10)
    assert order == [0, 1, 2, 3, 4, "again"]


def test_a_lock_may_be_taken_again_by_who_has_it():
    lock, taken = FairLock(), threading.Event()
    other = threading.Thread(target=lambda: lock.__enter__() and taken.set())
    with lock:
        with lock:
            other.start()
        assert not taken.wait(0.05), "given away within"
    assert taken.wait(10)
    other.join()


def test_who_gives_way_goes_on_after_those_who_wait():
    lock, order = FairLock(), []

    def ask():
        with lock:
            order.append("other")

    other = threading.Thread(target=ask)
    with lock:
        lock.give_way()  # to nobody
        other.start()
        until = time.monotonic() + 10
        while not lock._waiting:
            assert time.monotonic() < until
            time.sleep(0.001)
        lock.give_way()
        order.append("own")
    other.join(10)
    assert order == ["other", "own"]


def test_a_failure_within_gives_the_lock_back():
    lock = FairLock()
    with pytest.raises(RuntimeError), lock:
        raise RuntimeError
    taken = threading.Thread(target=lock.__enter__)
    taken.start()
    taken.join(10)
    assert not taken.is_alive()


def test_slices_are_of_as_many_as_take_the_time(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def work(some, each_s):
        clock[0] += each_s * len(some)
        return list(some)

    cheap = [*slices(range(40), lambda some: work(some, 1e-6))]
    dear = [*slices(range(9), lambda some: work(some, 1.0))]
    between = [*slices(range(40), lambda some: work(some, 0.01 / 4.5), slice_s=0.01)]
    assert [len(some) for some in cheap] == [1, 2, 4, 8, 16, 9]
    assert [len(some) for some in dear] == [1] * 9
    assert [len(some) for some in between][:5] == [1, 2, 4, 4, 4]
    for found, count in ((cheap, 40), (dear, 9), (between, 40)):
        assert [one for some in found for one in some] == list(range(count))
    assert [*slices([], lambda some: work(some, 1.0))] == []
