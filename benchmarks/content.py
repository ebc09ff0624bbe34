"""Content for a user: whether the search query that is written for someone fits them more than others.

A query is written for each user's next purchase. The judge is another model, MiniLM, which writes nothing here: it
ranks the user among 20 and among 100 by the cosine of the query with the titles that each of them bought, and the item
that the user bought next among 100 items. Beside the tuned model: the same model tuned without histories, the query of
the nearest neighbour among the items (by what is bought together), and that of the item that was really bought.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from benchmarks import sets
from benchmarks.item_vectors import SETS
from benchmarks.parts import tell
from benchmarks.peers.retrievers import minilm_states
from benchmarks.setup import Claims, Setup, mean_difference, research
from m6rec import assets
from m6rec.assets import DEFAULT_FOUNDATION
from m6rec.cli import bar
from m6rec.data.split import TEST, TRAIN, VALID
from m6rec.domains.domain import titled
from m6rec.evaluation.metrics import ranks
from m6rec.evaluation.report import Row, Table
from m6rec.foundation.checkpoint import load
from m6rec.foundation.generate import Sampling
from m6rec.language.safety import Blocklist
from m6rec.readouts import GenerateModel, TaskModelConfig
from m6rec.tasks import query
from m6rec.tasks.task import named
from m6rec.training import TrainConfig
from m6rec.types import Draft, Item

NUM_USERS = 2_000
LEARNED = {TRAIN: 240, VALID: 60}
GROUPS = (20, 100)
"""Users among whom one is found by their query."""
ITEMS = 100
PERSONAL, PLAIN, NEIGHBOUR, REAL = "m6rec", "tuned without histories", "nearest neighbour", "of the next purchase"
LIKELIEST = Sampling(max_tokens=24, stops=('"', "\n"))

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Users:
    """Test users, what they bought and what they buy next.

    Attributes:
        name: Of the set.
        domain: Its words.
        items: The catalogue.
        histories: For each user, positions of what they bought.
        targets: For each user, the position of what they buy next.
        drafts: For each part, what is asked for.
        bought_UI: What every user of the log bought before, 1 or 0.
    """

    name: str
    domain: Any
    items: Sequence[Item]
    histories: Sequence[NDArray[np.int64]]
    targets: NDArray[np.int64]
    drafts: Mapping[int, Sequence[Draft]]
    bought_UI: csr_matrix


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    tables: list[Table] = []
    claims: Claims = []
    samples = {}
    num_users = 60 if setup.quick else NUM_USERS
    for name in SETS[: 1 if setup.quick else None]:
        users = _users(name, num_users)
        texts = _written(users, setup)
        item_IE = minilm_states(tuple(users.items))
        found = {method: _judged(users, of_method, item_IE) for method, of_method in texts.items()}
        tables.append(_table(users, texts, found))
        samples[name] = {method: of_method[:12] for method, of_method in texts.items()}
        for other in (PLAIN, NEIGHBOUR):
            for group in GROUPS:
                ours, theirs = found[PERSONAL][f"MRR among {group}"], found[other][f"MRR among {group}"]
                lead = mean_difference(ours, theirs)
                what = f"{name}: queries, MRR of the user among {group} less that of {other}"
                claims.append((what, lead.value, ">", 0))
                claims.append((f"{what}: p", lead.p if lead.value > 0 else 1.0, "<=", 0.05))
    return {"users": num_users, "samples": samples, "tables": tuple(tables)}, claims


def _users(name: str, count: int) -> Users:
    made = sets.amazon_sequences(research(name))
    log, part = made.split.log, np.asarray(made.split.part)
    drafts = GenerateModel.examples(named("query"), made.split, made.domain)
    number = {item: n for n, item in enumerate(log.items)}
    row = {user: n for n, user in enumerate(log.users)}
    user_N = np.array([row[event.user] for event in log.events])
    item_N = np.array([number[event.item] for event in log.events])
    past = part != TEST
    bought_UI = csr_matrix(
        (np.ones(past.sum(), np.float32), (user_N[past], item_N[past])), shape=(len(row), len(number))
    )
    rng = np.random.default_rng(0)
    tests = sorted(rng.permutation(len(drafts[TEST]))[:count])
    asked = [drafts[TEST][n] for n in tests]
    chosen = {TEST: asked} | {
        one: [drafts[one][n] for n in rng.permutation(len(drafts[one]))[:most]] for one, most in LEARNED.items()
    }
    users = [user_N[draft.event] for draft in asked]
    return Users(
        name=name,
        domain=made.domain,
        items=list(log.items.values()),
        histories=[item_N[past & (user_N == user)] for user in users],
        targets=np.array([item_N[draft.event] for draft in asked]),
        drafts=chosen,
        bought_UI=bought_UI,
    )


def _written(users: Users, setup: Setup) -> dict[str, list[str]]:
    """The queries of each method, one a user."""
    foundation = load(DEFAULT_FOUNDATION)
    config = TaskModelConfig(task="query", domain="generic", foundation=DEFAULT_FOUNDATION)
    cache = GenerateModel.create(config, foundation, assets.home() / "states").cache
    found = {}
    for method, of_method in ((PERSONAL, users.drafts), (PLAIN, _without_histories(users.drafts))):
        one = GenerateModel.create(config, foundation, cache=cache)
        few = 20 if setup.quick else 1
        with bar(f"{users.name}: {method}") as update:
            one.tune(of_method[TRAIN][::few], of_method[VALID][::few], TrainConfig(epochs=2), progress=update)
        asked = of_method[TEST] if method == PERSONAL else of_method[TEST][:1]
        tell(f"{users.name}: {len(asked)} queries, {method}")
        texts = [made.text.strip() for made in one.write(asked, LIKELIEST)]
        found[method] = texts if method == PERSONAL else texts * len(users.targets)
    nearest = _nearest(users)
    found[NEIGHBOUR] = [_query(users, item) for item in nearest]
    found[REAL] = [_query(users, item) for item in users.targets]
    return found


def _without_histories(drafts: Mapping[int, Sequence[Draft]]) -> dict[int, list[Draft]]:
    def plain(drafts: Sequence[Draft]) -> list[Draft]:
        return [replace(one, context=(), prompt=query.prompt()) for one in drafts]

    return {part: plain(of_part) for part, of_part in drafts.items()}


def _query(users: Users, item: int) -> str:
    one = users.items[item]
    return query.wording(one if titled(users.domain, one) else replace(one, title=""))


def _nearest(users: Users) -> list[int]:
    """For each user the item, not theirs, that is bought most with theirs, by the cosine of the columns."""
    length_I = np.sqrt(np.maximum(users.bought_UI.sum(0).A1, 1))
    found = []
    for history in users.histories:
        together_I = np.asarray(users.bought_UI[:, history].sum(1).T @ users.bought_UI).ravel() / length_I
        together_I[history] = -1
        found.append(int(together_I.argmax()))
    return found


def _judged(users: Users, texts: Sequence[str], item_IE: Floats) -> dict[str, Floats]:
    """Reciprocal ranks of each user and of each next item, by MiniLM."""
    unique = list(dict.fromkeys(texts))
    states = minilm_states(tuple(Item(text, text) for text in unique))
    query_UE = states[[unique.index(text) for text in texts]]
    user_UE = np.stack([item_IE[history].mean(0) for history in users.histories])
    user_UE /= np.linalg.norm(user_UE, axis=1, keepdims=True)
    found = {}
    for group in GROUPS:
        others_UG = _others(len(texts), len(texts), np.arange(len(texts)), group)
        found[f"MRR among {group}"] = _reciprocal(query_UE, user_UE[others_UG])
    others_UG = _others(len(texts), len(users.items), users.targets, ITEMS)
    found[f"MRR of the next purchase among {ITEMS}"] = _reciprocal(query_UE, item_IE[others_UG])
    return found


def _others(count: int, total: int, own: NDArray[np.int64], group: int) -> NDArray[np.int64]:
    """For each of so many questions its own number, then ``group`` - 1 others of ``total``."""
    rng = np.random.default_rng(group)
    rows = []
    for number in range(count):
        drawn = rng.permutation(total)[:group]
        rows.append([own[number], *drawn[drawn != own[number]][: group - 1]])
    return np.array(rows)


def _reciprocal(query_UE: Floats, choices_UGE: Floats) -> Floats:
    """1 / rank of the first choice."""
    score_UG = np.einsum("ue,uge->ug", query_UE, choices_UGE)
    return 1 / ranks(score_UG, np.zeros(len(score_UG), int))


def _table(users: Users, texts: Mapping[str, Sequence[str]], found: Mapping[str, Mapping[str, Floats]]) -> Table:
    blocked = Blocklist()
    rows = []
    for method, of_method in texts.items():
        metrics = {name: (float(values.mean()),) for name, values in found[method].items()}
        old = [
            text in {_query(users, item) for item in history}
            for text, history in zip(of_method, users.histories, strict=True)
        ]
        metrics["different"] = (len(set(of_method)) / len(of_method),)
        metrics["of an item that they have"] = (float(np.mean(old)),)
        metrics["blocked"] = (float(np.mean([blocked.holds(text) for text in of_method])),)
        rows.append(Row(method=method, metrics=metrics))
    note = f"{len(users.targets)} users; the judge is MiniLM. Chance among 20: .180, among 100: .052."
    return Table(
        title=f"Queries, {users.name}", metric=f"MRR among {GROUPS[0]}", rows=tuple(rows), ours=PERSONAL, note=note
    )
