"""What is made for a user: products that they would like and queries that they would type, on MovieLens.

Tuned on likes of the training part, measured on likes of the test part, three seeds. A text is personal if the user's
own history makes it likelier than another user's:

- likelihood: of what the user liked next, after the own history and after that of another user in the test;
- user retrieval: 20 histories, of which one is the user's, in the order in which they make that text likely; beside the
  place of another user's history among the same 20;
- validity: designs under the constraint that they be in the catalogue, and without it;
- queries: a plain search engine (TF-IDF over titles and categories) is asked the query that is written for the user; of
  the items that they have not met, is the one that they liked next among the first? Beside the query of another user.

Significance is by the paired bootstrap over users, of means over the seeds. Beside it stands the share of texts that
the own history wins, with a sign test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.setup import SEEDS, Claims, Setup
from m6rec.data.split import TEST, TRAIN, VALID
from m6rec.domains import prepared
from m6rec.domains.prepared import Prepared
from m6rec.evaluation.metrics import Difference, WinRate, bootstrap_difference, hit_rate, ranks, win_rate
from m6rec.evaluation.metrics.words import catalogue_validity
from m6rec.evaluation.report import Row, Table
from m6rec.foundation import checkpoint
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.generate import Sampling
from m6rec.foundation.states import StateCache
from m6rec.readouts import GenerateModel, TaskModelConfig
from m6rec.tasks import design
from m6rec.tasks.examples import task_drafts
from m6rec.tasks.task import named
from m6rec.text.constraints import TitleTrie
from m6rec.training import TrainConfig
from m6rec.types import Draft

METHOD = "option-adapter"
"""As it was measured; by now the default for texts is another (design/006)."""
OWN, OTHERS = "own history", "another's history"
CUTS = (1, 10, 100)
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is done.

    Attributes:
        training: Texts to tune on.
        validation: Texts to choose the epoch by.
        tests: Texts of the test part whose likelihood is measured, and for as many users texts are written.
        users: Users whose history is retrieved.
        histories: Among so many.
        epochs: Passes over the training texts.
        seeds: Of tuning.
    """

    training: int
    validation: int
    tests: int
    users: int
    histories: int
    epochs: int
    seeds: tuple[int, ...]


FULL = Budget(training=600, validation=60, tests=150, users=60, histories=20, epochs=1, seeds=SEEDS)
QUICK = Budget(training=100, validation=20, tests=24, users=8, histories=5, epochs=1, seeds=SEEDS[:1])


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    budget, made = QUICK if setup.quick else FULL, prepared.load(setup.data)
    foundation = checkpoint.load()
    tables: list[Table] = []
    claims: Claims = []
    cache: StateCache | None = None
    for name in ("design", "query"):
        drafts = _drawn(name, made, budget)
        writers: list[GenerateModel] = []
        for seed in budget.seeds:
            config = TaskModelConfig(task=name, domain=made.domain_name, foundation=foundation.source, method=METHOD)
            writers.append(GenerateModel.create(config, foundation, cache=cache, seed=seed))
            cache = writers[-1].cache
            writers[-1].tune(drafts[TRAIN], drafts[VALID], TrainConfig(epochs=budget.epochs, seed=seed))
        told, compared = _personal(name, writers, drafts[TEST], made, budget)
        tables += compared
        claims += told
        more = _designs if name == "design" else _queries
        table, told = more(writers, drafts[TEST], made, foundation)
        tables.append(table)
        claims += told
    return {"seed": list(budget.seeds), "budget": asdict(budget), "tables": tuple(tables)}, claims


def _drawn(name: str, made: Prepared, budget: Budget) -> dict[int, list[Draft]]:
    """Texts of each part at random; of the test part one a user with a history, so that users weigh the same."""
    drawn = {}
    most = {TRAIN: budget.training, VALID: budget.validation, TEST: budget.tests}
    for part, drafts in task_drafts(named(name), made.split, made.domain).items():
        order = np.random.default_rng(part).permutation(len(drafts)).tolist()
        if part == TEST:
            of_user = {made.split.log.events[drafts[n].event].user: n for n in order if len(drafts[n].context) > 1}
            order = list(of_user.values())
        drawn[part] = [drafts[number] for number in order[: most[part]]]
    return drawn


def _personal(
    name: str, writers: Sequence[GenerateModel], tests: Sequence[Draft], made: Prepared, budget: Budget
) -> tuple[Claims, list[Table]]:
    """Likelihood and user retrieval with the own history and with another's."""
    others = [replace(tests[number - 1], target=draft.target) for number, draft in enumerate(tests)]
    counts = writers[0].nats(tests)[1]
    own_ST = np.stack([writer.nats(tests)[0] for writer in writers]) / counts
    others_ST = np.stack([writer.nats(others)[0] for writer in writers]) / counts
    people = [made.split.log.events[draft.event].user for draft in tests]
    likelihood = _difference(own_ST.mean(0), others_ST.mean(0), people)
    asked = tests[: budget.users]
    places = [_places(writer, asked, budget.histories) for writer in writers]
    own_SU, others_SU = (1 / np.stack(one) for one in zip(*places, strict=True))
    retrieval = _difference(own_SU.mean(0), others_SU.mean(0), people[: budget.users])
    tables = [
        Table(
            title=f"{name}: nats a token of what was liked next",
            metric="nats",
            rows=(_row(OWN, "nats", own_ST.mean(1)), _row(OTHERS, "nats", others_ST.mean(1))),
            ours=OWN,
            note=_told(likelihood, win_rate(own_ST.mean(0), others_ST.mean(0))),
        ),
        Table(
            title=f"{name}: the place of a user's history among {budget.histories}",
            metric="MRR",
            rows=(_row(OWN, "MRR", own_SU.mean(1)), _row(OTHERS, "MRR", others_SU.mean(1))),
            ours=OWN,
            note=_told(retrieval, win_rate(own_SU.mean(0), others_SU.mean(0))),
        ),
    ]
    claims: Claims = [
        (f"{name}: nats a token gained by the own history", likelihood.value, ">", 0),
        (f"{name}: … p of no gain", likelihood.p, "<=", 0.05),
        (f"{name}: MRR of the own history over another's", retrieval.value, ">", 0),
        (f"{name}: … p of no gain", retrieval.p, "<=", 0.05),
    ]
    return claims, tables


def _places(writer: GenerateModel, asked: Sequence[Draft], histories: int) -> tuple[Floats, Floats]:
    """Of each text the place of the own history, and of the next user's, among so many histories."""
    size = min(histories, len(asked))
    scored = [
        replace(asked[(number + step) % len(asked)], target=draft.target)
        for number, draft in enumerate(asked)
        for step in range(size)
    ]
    nats = writer.nats(scored)[0].reshape(len(asked), size)
    return ranks(nats, np.zeros(len(asked), np.int64)), ranks(nats, np.ones(len(asked), np.int64))


def _difference(first: Floats, second: Floats, people: Sequence[str]) -> Difference:
    def mean(_: NDArray[np.int64], values: Floats) -> float:
        return float(values.mean())

    return bootstrap_difference(np.zeros(len(first), np.int64), first, second, people, metric=mean)


def _told(difference: Difference, won: WinRate) -> str:
    interval = f"{difference.low:.4f} to {difference.high:.4f}"
    return (
        f"{difference.value:.4f} apart, 95 % interval {interval}, p {difference.p:.4f}. "
        f"The own history wins {100 * won.value:.0f} % of the texts, p {won.p:.4f}."
    )


def _row(method: str, metric: str, by_seed: Floats) -> Row:
    return Row(method=method, metrics={metric: tuple(by_seed.tolist())})


def _designs(
    writers: Sequence[GenerateModel], tests: Sequence[Draft], made: Prepared, foundation: Foundation
) -> tuple[Table, Claims]:
    """How many designs are in the catalogue, and how many different ones there are."""
    items = made.split.log.items
    titles = [item.title for item in items.values()]
    texts = [design.target(name, item.title) for item in items.values() for name in design.categories(item)]
    trie = TitleTrie(foundation.tokenizer, texts)
    rows = []
    for method, constraints in (("constrained", [trie] * len(tests)), ("free", [])):
        measured = []
        for writer in writers:
            written = writer.write(tests, Sampling(max_tokens=trie.longest + 1, stops=("\n",)), constraints)
            named = [design.read(one.text)[1] for one in written]
            different = len(set(named)) / len(named)
            measured.append({"validity": catalogue_validity(named, titles), "different": different})
        metrics = {key: tuple(one[key] for one in measured) for key in measured[0]}
        rows.append(Row(method=method, metrics=metrics))
    table = Table(title="design: in the catalogue", metric="validity", rows=tuple(rows))
    return table, [("design: validity under the constraint", rows[0].mean("validity"), ">=", 1)]


def _queries(
    writers: Sequence[GenerateModel], tests: Sequence[Draft], made: Prepared, foundation: Foundation
) -> tuple[Table, Claims]:
    """How often a query finds what the user liked next."""
    log = made.split.log
    numbers = {item: number for number, item in enumerate(log.items)}
    vectorizer = TfidfVectorizer()
    items_IV = vectorizer.fit_transform(f"{item.title} {' '.join(item.categories)}" for item in log.items.values())
    targets = np.array([numbers[log.events[draft.event].item] for draft in tests])
    seen = np.zeros((len(tests), len(numbers)), bool)
    for row, draft in zip(seen, tests, strict=True):
        user = log.events[draft.event].user
        row[[numbers[event.item] for event in log.events[: draft.event] if event.user == user]] = True
    seen[np.arange(len(tests)), targets] = False
    found: dict[str, list[Floats]] = {OWN: [], OTHERS: []}
    for writer in writers:
        queries = [one.text for one in writer.write(tests, Sampling(max_tokens=24, stops=('"', "\n")))]
        for method, asked in ((OWN, queries), (OTHERS, [queries[-1], *queries[:-1]])):
            likeness_QI = (vectorizer.transform(asked) @ items_IV.T).toarray()
            found[method].append(ranks(likeness_QI, targets, seen))
    rows = tuple(
        Row(method=method, metrics={f"hit@{cut}": tuple(hit_rate(one, cut) for one in places) for cut in CUTS[::-1]})
        for method, places in found.items()
    )
    note = "A tie costs half of its items."
    table = Table(title="query: finds what was liked next", metric=f"hit@{CUTS[-1]}", rows=rows, ours=OWN, note=note)
    lead = rows[0].mean(f"hit@{CUTS[-1]}") - rows[1].mean(f"hit@{CUTS[-1]}")
    return table, [(f"query: hit@{CUTS[-1]} of the own query over another's", lead, ">", 0)]
