"""A service sees what other processes put into the journal and the catalogue that they share."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from m6rec.errors import StoreError
from m6rec.serving.recommender import Recommender

EVERY_S = 0.03
"""Between two looks, each of which takes a fraction of a millisecond where nothing is new."""

_log = logging.getLogger(__name__)


@contextmanager
def following(recommender: Recommender, every_s: float = EVERY_S) -> Iterator[None]:
    """For the block, takes in what others write, from a thread for events and one for items, which may take longer."""
    stopped = threading.Event()

    def follow(name: str, look: Callable[[], int]) -> None:
        failed = False  # it is logged once, until it ends
        while not stopped.wait(every_s):
            try:
                look()
                failed = False
            except StoreError as error:
                if not failed:
                    _log.warning("%s of other processes can't be read, and are tried again: %s", name, error)
                failed = True

    looks = {"events": recommender.follow_events, "items": recommender.follow_items}
    threads = [threading.Thread(target=follow, args=one, name=f"follow {one[0]}", daemon=True) for one in looks.items()]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
