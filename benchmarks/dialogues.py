"""Recall of what people recommend to each other, on ReDial's validation dialogues, with repeats left out.

At each message in which the recommender names films for the first time, the conversation up to the seeker's latest
message is read as any client's: titles and wishes are found in the text, not taken from its marks. The catalogue is
ReDial's own list of films. Rows:

- naive repeat: the films named so far, the latest first;
- popularity: the films that most of the other dialogues name;
- item-item models: retrieval's collaborative part alone, fitted on the other dialogues as a shop would on its log;
- m6rec, MovieLens alone: retrieve and rank as the service does, tuned on MovieLens and on no dialogue. Films that
  MovieLens knows keep its id, and so their scores and statistics;
- m6rec: the same tunings in a shop whose log is the other dialogues alone: their films count as liked and are linked.

All but the first keep to the wishes of the conversation (``Session.allows``), or don't, to see what those are worth.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from copy import copy
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m6rec.data.log import Log
from m6rec.evaluation.metrics.conversation import naive_repeat, recall
from m6rec.evaluation.report import Row, Table
from m6rec.features.interactions import InteractionStore
from m6rec.predicate import ALL, Predicate, attributes
from m6rec.readouts import EmbedModel, ScoreModel
from m6rec.retrieval import blend
from m6rec.serving.recommender import Recommender
from m6rec.tasks.chat import Message, Session, read
from m6rec.text import dialogues
from m6rec.text.lexicon import Lexicon, tokens
from m6rec.types import Event, Item, User

OURS, ELSEWHERE, POPULARITY = "m6rec", "m6rec, MovieLens alone", "popularity"
CUTS = (1, 10, 50)
GENRES = {"sci-fi": "Sci-Fi", "film-noir": "Film-Noir", "family": "Children's"}


def films(folder: Path, items: dict[str, Item]) -> dict[str, Item]:
    """The films of ReDial by their marks, worded as MovieLens's."""
    known = {(_key(item.title), item.details.get("year")): item.id for item in items.values()}
    made = {}
    for mark, row in json.loads((folder / "id2info.json").read_text()).items():
        title, _, rest = row["name"].rpartition(" (")
        year = int(rest[:4]) if title and rest[:4].isdigit() else None
        title = " ".join((title if year else row["name"]).split())
        genres = tuple(GENRES.get(genre, genre.capitalize()) for genre in row["genre"])
        item = known.get((_key(title), year), f"redial {mark}")
        made[mark] = Item(item, title, genres, {} if year is None else {"year": year})
    return made


def _key(title: str) -> tuple[str, ...]:
    return tuple(token.word for token in tokens(title) if token.is_word and token.word not in ("the", "a", "an"))


def questions(path: Path, marks: dict[str, Item], count: int) -> list[tuple[list[Message], list[str], list[str]]]:
    """(messages, films that the recommender names next, films named before) of each turn to be measured."""
    asked = []
    for dialogue in dialogues.read(path)[:count]:
        messages: list[Message] = []
        named: list[str] = []
        for turn in dialogue.turns:
            items = [marks[mark].id for mark in turn.items if mark in marks]
            end = max((n for n, message in enumerate(messages) if message.role == "user"), default=-1) + 1
            if not turn.by_seeker and set(items) - set(named) and end:
                asked.append((messages[:end], items, list(named)))
            messages.append(Message("user" if turn.by_seeker else "assistant", turn.text))
            named += items
    return asked


def others(path: Path, marks: dict[str, Item], count: int) -> list[tuple[str, str, bool]]:
    """(dialogue, film, True) of all that the dialogues after the first ``count`` name."""
    return [
        (dialogue.id, marks[mark].id, True)
        for dialogue in dialogues.read(path)[count:]
        for turn in dialogue.turns
        for mark in turn.items
        if mark in marks
    ]


def best(scores: NDArray[np.float64], items: list[Item], session: Session, where: Predicate) -> list[str]:
    """The ids of the best items that have not come up, of those that a predicate holds of."""
    order = (items[place] for place in np.argsort(-scores, kind="stable"))
    fit = (item.id for item in order if item.id not in session.named and where.admits(attributes(item)))
    return list(islice(fit, CUTS[-1]))


def table(
    recommender: Recommender,
    retrieve: EmbedModel,
    rank: ScoreModel,
    items: Mapping[str, Item],
    folder: Path,
    count: int,
) -> Table:
    """Recall over the first ``count`` dialogues.

    Args:
        recommender: Tuned on MovieLens, which is its log. Its catalogue becomes that of ReDial.
        retrieve: Its retrieval task.
        rank: Its ranking task.
        items: Those of MovieLens.
        folder: That of ReDial.
        count: Dialogues that are measured; what the others name is what the log of a shop would hold.
    """
    path = folder / "valid_1000_raw_linked.jsonl"
    marks = films(folder, dict(items))
    catalogue = {item.id: item for item in marks.values()}
    known, lexicon = list(catalogue.values()), Lexicon(catalogue.values())
    asked = questions(path, marks, count)
    targets, named = [row[1] for row in asked], [row[2] for row in asked]
    sessions = [read(row[0], lexicon) for row in asked]
    lists = {OURS: list[list[str]](), ELSEWHERE: list[list[str]](), "naive repeat": naive_repeat(named)}
    events = others(path, marks, count)
    popularity = Counter(item for _, item in {(dialogue, item) for dialogue, item, _ in events})
    popular_I = np.array([popularity[item.id] for item in known], np.float64)
    fitted = blend.fit(events)
    row_I = np.array([fitted.numbers.get(item.id, -1) for item in known])

    def pulled(session: Session) -> NDArray[np.float64]:
        pull_I = fitted.scores([*session.shown, *session.seen, *session.liked])
        return np.where(row_I >= 0, pull_I[row_I], 0) + 1e-6 * popular_I

    for note, wishes in (("", [one.predicate for one in sessions]), (", any wish ignored", [ALL] * len(sessions))):
        asked_for = [*zip(sessions, wishes, strict=True)]
        lists[f"{POPULARITY}{note}"] = [best(popular_I, known, one, where) for one, where in asked_for]
        lists[f"item-item models{note}"] = [best(pulled(one), known, one, where) for one, where in asked_for]
    recommender.delete([item for item in items if item not in catalogue])
    recommender.upsert([item for item in known if item.id not in items])
    lists[ELSEWHERE] = [[one.item.id for one in recommender.suggest(session)] for session in sessions]
    told = [Event(f"redial {dialogue}", item, 0, 5.0) for dialogue, item, _ in events]
    log = Log(events=tuple(told), items=catalogue, users={event.user: User(event.user) for event in told})
    interactions = InteractionStore(catalogue, rank.domain.feedback).update_all(told)
    elsewhere = copy(retrieve)
    elsewhere.blend = fitted
    shop = Recommender(elsewhere, rank, log, interactions)
    lists[OURS] = [[one.item.id for one in shop.suggest(session)] for session in sessions]
    understood = sum(len(session.named & set(before)) for session, before in zip(sessions, named, strict=True))
    logged, spoken = len(catalogue.keys() & items.keys()), sum(len(set(before)) for before in named)
    note = (
        f"{count} dialogues, {len(asked)} turns, {len(known)} films, {logged} of them in MovieLens; of {spoken} names "
        f"of films before those turns {understood} were understood."
    )
    rows = tuple(
        Row(method=method, metrics={f"R@{cut}": (recall(one, targets, named, cut),) for cut in CUTS})
        for method, one in lists.items()
    )
    return Table(title="ReDial, repeats left out", metric="R@10", rows=rows, ours=OURS, note=note)
