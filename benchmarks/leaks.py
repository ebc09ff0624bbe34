"""Whether any question knows what comes after it: ``python -m benchmarks.leaks DATA``, a folder of ``m6rec prepare``.

Everything from some moments on is removed and shuffled, all is laid out again, links included, and what the questions
before are told has to stay the same to the last bit. Stops with the finding where it does not.
"""

import sys
from pathlib import Path

import numpy as np

from m6rec.data import leakage
from m6rec.data.split import TRAIN, Split
from m6rec.domains import prepared
from m6rec.domains.domain import Domain
from m6rec.evaluation.future import check_future, told_to, told_to_retrieval
from m6rec.readouts.embed import fit_sources
from m6rec.retrieval.blend import Blend
from m6rec.retrieval.examples import likes_of
from m6rec.tasks.task import named

NUM_USERS = 20


def main(folder: Path) -> None:
    """Checks like-ranking and retrieval for some of the users with held-out events."""
    data = prepared.load(folder)
    log, part = data.split.log, data.split.part
    held_out = sorted({log.events[at].user for at in np.flatnonzero(part != TRAIN)})
    users = {str(user) for user in np.random.default_rng(0).permutation(held_out)[:NUM_USERS]}
    for leak in leakage.find(data.split):
        print(f"{leak.count} {leak.name} (the first: {leak.example})")
    checks = {"like": told_to(named("like")), "retrieve": told_to_retrieval(_sources)}
    for task, told in checks.items():
        check_future(told, data.split, data.domain, users)
        print(f"{task}: no question of {len(users)} users changes with its future", flush=True)


def _sources(split: Split, domain: Domain) -> Blend:
    return fit_sources(likes_of(split, domain))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
