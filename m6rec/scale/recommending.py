"""Recommendations for all users, as Parquet partitions: the scores and filters of the service, in blocks of users.

A partition is the users of a range in the order of their ids: rows of (user, position from 1, item, score), the best
first. Whoever runs the partitions, and in which order, the files are the same.
"""

from __future__ import annotations

import hashlib
import json
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
from threadpoolctl import threadpool_limits

from m6rec.errors import ConfigError
from m6rec.fingerprint import Fingerprint, digest, of_file
from m6rec.scale.partitions import Partitions
from m6rec.serving import pipeline
from m6rec.serving.backend import Request
from m6rec.serving.journal import Journal, content_of
from m6rec.serving.state import ServingState
from m6rec.types import Ranked

Stage = Literal["retrieve", "rank"]
Progress = Callable[[int, int], None]
MAX_COUNT = 1_000
"""Items of a user at most."""
_RANKED_AT_ONCE = 8
PartitionMaker = Callable[[Sequence[int]], Iterator[tuple[int, int]]]
"""Makes partitions of these numbers, in any order; yields each number with its rows when its file is there."""
Found = list[tuple[str, float]]
"""(item, score) of one user's, the best first."""
_SCHEMA = pa.schema([("user", pa.string()), ("position", pa.int32()), ("item", pa.string()), ("score", pa.float32())])


@dataclass(frozen=True, kw_only=True)
class RecommendConfig:
    """What is written for each user.

    Attributes:
        count: Items at most.
        stage: "retrieve" for the best by the blend of retrieval, "rank" for as many of these as the service ranks,
            ordered by the ranking model.
        users: Users of a partition; what a killed job loses is at most one.
    """

    count: int = 10
    stage: Stage = "retrieve"
    users: int = 4_096

    def __post_init__(self) -> None:
        if self.stage not in get_args(Stage):
            raise ConfigError(f"stage is {self.stage!r}; choose one of {', '.join(get_args(Stage))}")
        if not 1 <= self.count <= MAX_COUNT:
            raise ConfigError(f"count is {self.count}; it must be 1 to {MAX_COUNT}")
        if self.users < 1:
            raise ConfigError(f"users of a partition are {self.users}; there must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a job did.

    Attributes:
        users: All that it is for.
        items: Those that may be recommended.
        partitions: All files.
        kept: Files that were there before.
        rows: Rows written now.
        seconds: For what was written now, without loading.
        users_per_s: Likewise.
        peak_rss_mib: Memory of this process, at most so far.
    """

    users: int
    items: int
    partitions: int
    kept: int
    rows: int
    seconds: float
    users_per_s: float
    peak_rss_mib: float


class RecommendJob:
    """Makes partitions.

    Args:
        state: What a recommender answers from, to which nobody may write meanwhile.
        config: What is wanted.

    Raises:
        ConfigError: More items are wanted than are ranked.
    """

    def __init__(self, state: ServingState, config: RecommendConfig) -> None:
        if config.stage == "rank" and config.count > state.num_retrieved:
            raise ConfigError(
                f"count is {config.count}, but {state.num_retrieved} items are ranked; give fewer, or set "
                "serving.limits.num_retrieved"
            )
        self._state, self.config = state, config
        self.search = self._state.models.index.exhaustive()
        self.users = sorted(self._state.users)

    @property
    def num_items(self) -> int:
        """Items that may be recommended."""
        return len(self._state.live)

    @property
    def limits(self) -> str:
        """The settings of the service on which the results depend."""
        told = f"{self.search.num_from_sources} items from sources"
        if self.config.stage == "rank":
            told += f", {self._state.num_retrieved} ranked, {self._state.latest} events read"
        return told

    def digest(self) -> str:
        """Of the items and the users, with their details."""
        state = hashlib.blake2b(digest_size=16)
        for known in (self._state.live, self._state.users):
            for _, one in sorted(known.items()):
                state.update(repr(one).encode(errors="surrogatepass"))
        return state.hexdigest()

    @property
    def num(self) -> int:
        """How many partitions there are."""
        return -(-len(self.users) // self.config.users)

    def users_of(self, number: int) -> list[str]:
        """Those of a partition."""
        return self.users[number * self.config.users : (number + 1) * self.config.users]

    def partition(self, number: int, threads: int = 1) -> pa.Table:
        """The recommendations of a partition, made by so many threads."""
        users = self.users_of(number)
        recommended = self._retrieved if self.config.stage == "retrieve" else self._ranked
        size = min(self.search.block, len(users) if self.config.stage == "retrieve" else _RANKED_AT_ONCE)
        blocks = [users[start : start + size] for start in range(0, len(users), size)]
        if self.config.stage == "rank":
            threads = 1  # the model has threads of its own
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
            return pa.concat_tables(map(_table, blocks, pool.map(recommended, blocks)))

    def _retrieved(self, users: Sequence[str]) -> list[Found]:
        return self._search_for(users, self.config.count)

    def _ranked(self, users: Sequence[str]) -> list[Found]:
        near = [
            [Ranked(self._state.live[item], score) for item, score in found]
            for found in self._search_for(users, self._state.num_retrieved)
        ]
        ranked = pipeline.rank_retrieved(self._state, users, near)
        return [[(one.item.id, one.score) for one in hits[: self.config.count]] for hits in ranked]

    def _search_for(self, users: Sequence[str], count: int) -> list[Found]:
        tastes = [pipeline.taste(self._state, Request(user=user)) for user in users]
        row_UK, score_UK = self.search.search([likes for likes, _ in tastes], [met for _, met in tastes], count)
        ids = self.search.ids
        return [
            [(ids[row], score) for row, score in zip(rows, scores, strict=True) if row >= 0]
            for rows, scores in zip(row_UK.tolist(), score_UK.tolist(), strict=True)
        ]


def _table(users: Sequence[str], found: Sequence[Found]) -> pa.Table:
    rows = [
        (user, position, item, score)
        for user, hits in zip(users, found, strict=True)
        for position, (item, score) in enumerate(hits, 1)
    ]
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)], _SCHEMA)


def here(job: RecommendJob, out: Partitions, threads: int) -> PartitionMaker:
    """What makes them in this process; so many blocks of users are searched for at once."""

    def made(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
        for number in numbers:
            table = job.partition(number, threads)
            out.commit(number, table)
            yield number, len(table)

    return made


def run(
    job: RecommendJob, out: Partitions, engine: PartitionMaker, progress: Progress = lambda done, total: None
) -> Summary:
    """Makes the partitions that are missing.

    Args:
        job: What they are of.
        out: Where they are kept.
        engine: What makes them.
        progress: Called with (done, all) users of partitions that were missing.
    """
    missing, num_rows, num_users, start = out.missing(), 0, 0, time.perf_counter()
    total = sum(len(job.users_of(number)) for number in missing)
    progress(0, total)
    for number, rows in engine(missing):
        num_rows += rows
        num_users += len(job.users_of(number))
        progress(num_users, total)
    seconds = time.perf_counter() - start
    return Summary(
        users=len(job.users),
        items=job.num_items,
        partitions=out.num,
        kept=out.num - len(missing),
        rows=num_rows,
        seconds=seconds,
        users_per_s=num_users / seconds,
        peak_rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def belongs_to(
    job: RecommendJob, dataset: Fingerprint, runs: Sequence[Path], journal: Journal | None
) -> dict[str, Any]:
    """All that determines the partitions, in plain values by name.

    Args:
        job: What makes them.
        dataset: The prepared dataset.
        runs: Those that retrieve and rank.
        journal: Events of the service; None without.
    """
    files = [file for run in runs for file in sorted(run.glob("*.safetensors"))]
    return {
        "m6rec": version("m6rec"),
        "dataset": dataset.data,
        "domain": dataset.domain,
        "runs": digest([(file.name, of_file(file)) for file in files]),
        "catalogue": job.digest(),
        "limits": job.limits,
        "journal": "" if journal is None else _of_journal(journal, job.users),
        **asdict(job.config),
    }


def _of_journal(journal: Journal, users: Sequence[str]) -> str:
    """A digest of its events, and of who has been forgotten when."""
    state = hashlib.blake2b(json.dumps(sorted(journal.forgotten(users).items())).encode(), digest_size=16)
    for event in journal.replay():
        state.update(content_of(event))
    return state.hexdigest()
