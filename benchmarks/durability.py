"""What is acknowledged outlives every fault, once: kills, lost answers, full disks and a stopped Redis.

``make bench-durability`` makes a thousand random trials, with ``QUICK=1`` forty. A trial is the real client, the real
service as a process of its own with a tiny model, and the real journal. While two threads write events and items
through a proxy that loses requests and answers, the fault strikes once or twice. At the end the service tells what it
knows of each user, and the journal and the catalogue what they hold.

- lost answers: the proxy loses a third of all requests or answers;
- kill: the service is killed (SIGKILL) and started again;
- full disk: for a while no file of the service can grow by more than some KiB; now and then it is killed meanwhile;
- Redis: the journal's server is killed and started again, now and then the service too.
"""

from __future__ import annotations

import multiprocessing
import random
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from benchmarks import parts
from benchmarks.setup import Claims, Setup
from m6rec.client import Client, ServiceError
from m6rec.errors import UnknownError
from m6rec.serving.catalogue import Catalogue
from m6rec.serving.journal import Journal, open_journal
from m6rec.types import Event, Item
from tests import lossy, running
from tests.redis_server import Server

KINDS = ("lost answers", "kill", "full disk", "Redis")
TRIALS, QUICK_TRIALS = 1_000, 40
BATCHES, LONGEST_BATCH = 4, 4
"""Calls of a thread in a trial, and events in one."""
LOSS = {"lost answers": 0.35, "kill": 0.1, "full disk": 0.1, "Redis": 0.1}
"""How often the proxy loses a request or an answer."""
GROWTH_BYTES = 8 << 10
"""How much the largest file of the service may grow at most on a disk that is full."""
LIFE = 40
"""Trials of one store, so that what it holds at the beginning differs."""
PRELOADED = (
    "benchmarks.parts",
    "m6rec.serving.api.server",
    "m6rec.serving.recommender",
    "tests.redis_server",
    "tests.tiny",
)
TITLE = "What is acknowledged outlives every fault, once"


def serve(store: Path, journal: str, port: int) -> None:
    """The service, in a process of its own.

    Args:
        store: Its folder.
        journal: The journal's folder or URL.
        port: Where it listens.
    """
    import torch

    from m6rec.domains.domain import named
    from m6rec.features.interactions import InteractionStore
    from m6rec.readouts import ScoreModel, TaskModelConfig
    from m6rec.serving.api import server
    from m6rec.serving.recommender import Recommender
    from m6rec.serving.settings import Settings
    from tests import tiny

    torch.set_num_threads(1)
    log, domain = _log(), named("movielens")
    foundation = tiny.foundation(num_layers=2)
    rank = ScoreModel.create(TaskModelConfig(task="like", domain="movielens", foundation="tiny"), foundation)
    retrieve = tiny.retrieval(foundation, list(log.items.values()), "movielens")
    interactions = InteractionStore(log.items, domain.feedback).update_all(log.events)
    backend = Recommender(
        retrieve, rank, log, interactions, journal=open_journal(journal), catalogue=Catalogue(store / "catalogue")
    )
    server.serve(backend, Settings(port=port))


def _log() -> Any:
    from m6rec.data.log import Log
    from m6rec.types import User

    items = {f"i{n}": Item(f"i{n}", f"Film {n}") for n in range(6)}
    return Log(events=(Event("u", "i0", 1, 5.0),), items=items, users={"u": User("u")})


class Service:
    """A service that can be killed and started again at the same address.

    Attributes:
        journal: The journal's folder or URL.
        store: Where it keeps the rest.
        url: Where it listens.
    """

    def __init__(self, store: Path, journal: str) -> None:
        port = running.free_port()
        self.store, self.journal, self.url = store, journal, f"http://127.0.0.1:{port}"
        self._arguments = (store, journal, port)
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(list(PRELOADED))

    def start(self) -> bool:
        """Starts it; returns whether it answers."""
        self._process = self._processes.Process(target=serve, args=self._arguments, daemon=True)
        self._process.start()
        until = time.monotonic() + 60  # the first one imports what the others are forked with
        with httpx.Client(base_url=self.url, timeout=5) as client:
            while self._process.is_alive() and time.monotonic() < until:
                with suppress(httpx.HTTPError):
                    if client.get("/readyz").is_success:
                        return True
                time.sleep(0.02)
        return False

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.join()

    def fill_disk(self, growth: int) -> None:
        """Lets no file of it grow beyond the largest and so many bytes."""
        size = max(file.stat().st_size for file in self.store.rglob("*") if file.is_file())
        self._limit(size + growth)

    def free_disk(self) -> None:
        """Undoes ``fill_disk``."""
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        if self._process.pid is not None:
            resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@dataclass
class Told:
    """What a thread has written.

    Attributes:
        user: Whose events they are.
        acknowledged: Of each event, by time, how often it happened and the service said that it is kept.
        unsure: … and how often nobody said so.
        items: Ids of items that the service said are in the catalogue.
    """

    user: str
    acknowledged: Counter[int] = field(default_factory=Counter)
    unsure: Counter[int] = field(default_factory=Counter)
    items: set[str] = field(default_factory=set)


def _write(told: Told, url: str, rng: random.Random) -> None:
    """Some calls of a client that doesn't give up easily."""
    with Client(url, timeout_s=10, retries=40, max_wait_s=0.1) as client:
        for number in range(BATCHES):
            times = [10 * number + place for place in range(rng.randint(1, LONGEST_BATCH))]
            times += times[: rng.randint(0, 1)]  # what happened twice in a second counts twice
            text = "Long words. " * rng.choice([0, 1, 300])
            try:
                client.ingest([Event(told.user, f"i{rng.randrange(6)}", time, 5.0, text) for time in times])
                told.acknowledged.update(times)
            except ServiceError:
                told.unsure.update(times)
            if number == 1:
                item = f"of {told.user}"
                with suppress(ServiceError):
                    client.upsert([Item(item, "A new film")])
                    told.items.add(item)
            time.sleep(rng.uniform(0, 0.02))


def _losses(rng: random.Random, rate: float) -> Iterator[str]:
    while True:
        yield rng.choice(["request", "answer"]) if rng.random() < rate else "none"


def _strike(kind: str, service: Service, redis: Server, rng: random.Random) -> Counter[str]:
    """The faults of a trial; counts what was done."""
    done: Counter[str] = Counter()

    def wait() -> None:
        time.sleep(rng.uniform(0.005, 0.1))

    for _ in range(rng.randint(1, 2)):
        wait()
        if kind == "Redis":
            redis.stop()
            wait()
            redis.start()
            done["Redis restarts"] += 1
        if kind == "full disk":
            service.fill_disk(rng.randrange(GROWTH_BYTES))
            wait()
            done["full disks"] += 1
        if kind == "kill" or (kind != "lost answers" and rng.random() < 0.3):
            service.kill()
            wait()
            done["restarts"] += 1
            done["failed restarts"] += not service.start()
        elif kind == "full disk":
            service.free_disk()
    return done


def trial(number: int, kind: str, service: Service, redis: Server) -> Counter[str]:
    """One trial; counts what went on and what was wrong."""
    rng = random.Random(number)
    writers = [Told(f"{kind} {number} {name}") for name in "ab"]
    with lossy.proxy(service.url, _losses(rng, LOSS[kind])) as url:
        threads = [threading.Thread(target=_write, args=(told, url, random.Random(told.user))) for told in writers]
        for thread in threads:
            thread.start()
        counts = _strike(kind, service, redis, rng)
        counts["trials"] = 1
        for thread in threads:
            thread.join()
    with Client(service.url) as client:
        known = {told.user: _known(client, told.user) for told in writers}
    kept = open_journal(service.journal)
    catalogue = Catalogue(service.store / "catalogue")
    for told in writers:
        counts.update(_judge(told, known[told.user], kept))
        counts["items lost"] += len(told.items - catalogue.items().keys())
    kept.close()
    catalogue.close()
    return counts


def _known(client: Client, user: str) -> list[Event]:
    try:
        return client.get_user(user)[1]
    except UnknownError:
        return []


def _judge(told: Told, known: list[Event], journal: Journal) -> Counter[str]:
    """What was lost or doubled of one thread's events."""
    kept = [event for event in journal.replay() if event.user == told.user]
    times = Counter(event.time for event in kept)
    lost = told.acknowledged - times
    extra = times - told.acknowledged
    return Counter(
        {
            "acknowledged": told.acknowledged.total(),
            "unsure": told.unsure.total(),
            "lost": lost.total(),
            "doubled": (extra - told.unsure).total(),
            "in one of memory and journal": (Counter(event.time for event in known) - times).total()
            + (told.acknowledged - Counter(event.time for event in known)).total(),
        }
    )


def _life(kind: str, numbers: Iterable[int], store: Path, redis: Server) -> Counter[str]:
    """The trials of one store and its service."""
    service = Service(store, redis.url if kind == "Redis" else str(store / "histories"))
    counts = Counter({"failed restarts": not service.start()})
    try:
        for number in numbers:
            counts.update(trial(number, kind, service, redis))
    finally:
        service.kill()
    return counts


def trials(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    counts = {kind: Counter[str]() for kind in KINDS}
    began = time.monotonic()
    num_trials = QUICK_TRIALS if setup.quick else TRIALS
    with TemporaryDirectory() as name:
        redis = Server(Path(name) / "redis", durable=True).start()
        try:
            for life, first in enumerate(range(0, num_trials, LIFE)):
                kinds = KINDS if setup.quick else KINDS[life % len(KINDS) :][:1]
                for place, kind in enumerate(kinds):
                    numbers = range(first, min(first + LIFE, num_trials))[place :: len(kinds)]
                    counts[kind].update(_life(kind, numbers, Path(name) / f"store {life} {kind}", redis))
                parts.tell(f"{first + LIFE} of {num_trials} trials, {time.monotonic() - began:.0f} s")
        finally:
            redis.stop()
    whole = Counter[str]()
    for of_kind in counts.values():
        whole.update(of_kind)
    claims: Claims = [
        ("random trials through the client", whole["trials"], ">=", num_trials),
        ("acknowledged events lost", whole["lost"], "<=", 0),
        ("events that count twice", whole["doubled"], "<=", 0),
        ("events that the service and its journal don't both know", whole["in one of memory and journal"], "<=", 0),
        ("acknowledged items lost", whole["items lost"], "<=", 0),
        ("restarts that did not answer", whole["failed restarts"], "<=", 0),
    ]
    results = {kind: {name: counts[kind][name] for name in sorted(whole)} for kind in KINDS}
    return {"results": results, "seconds": time.monotonic() - began}, claims


PARTS: dict[str, parts.Measure] = {"trials": trials}

if __name__ == "__main__":
    parts.run("durability", TITLE, PARTS)
