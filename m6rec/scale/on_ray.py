"""The partitions of a job made by actors of Ray, one core each, on this machine or on those of a cluster.

Each actor holds a job of its own and writes its files itself, so that nothing but numbers goes between processes, and a
partition is asked of an actor only when it is idle. All machines must see the files at the same paths.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util import ActorPool

from m6rec.errors import M6RecError
from m6rec.scale.partitions import Partitions
from m6rec.scale.recommending import PartitionMaker, RecommendJob, here

MOST_RESTARTS = 3
"""Of an actor whose process died; what it was about is asked again."""


class _Maker:
    def __init__(self, build: Callable[[], RecommendJob], out: Partitions) -> None:
        self._make = here(build(), out, 1)

    def make(self, number: int) -> tuple[int, int]:
        return next(self._make([number]))


def actors(build: Callable[[], RecommendJob], out: Partitions, workers: int) -> PartitionMaker:
    """The engine of so many actors, 0 for one a core of the cluster; it starts Ray here unless ``RAY_ADDRESS`` is set.

    Args:
        build: Makes the job in the process of an actor.
        out: Where the files go.
        workers: See above.
    """

    def made(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
        if not numbers:
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray tells its makers of every start otherwise
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
        try:
            num = min(workers or int(ray.cluster_resources()["CPU"]), len(numbers))
            maker = ray.remote(num_cpus=1, max_restarts=MOST_RESTARTS, max_task_retries=MOST_RESTARTS)(_Maker)
            pool = ActorPool([maker.remote(build, out) for _ in range(num)])
            yield from pool.map_unordered(lambda actor, number: actor.make.remote(number), numbers)
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, M6RecError) else error) from error
        except RayActorError as error:
            raise M6RecError(
                f"a process of Ray died {MOST_RESTARTS + 1} times ({error}); what was written stays. Was memory short? "
                "Give fewer --workers, and the same command again"
            ) from error
        finally:
            ray.shutdown()

    return made
