"""Recall of what people recommend to each other: ReDial's validation dialogues, answered by tunings of MovieLens.

The catalogue is the films of ReDial's own list; those that MovieLens knows keep its id, and so their factors and
statistics. At each message in which the recommender names films for the first time, the conversation up to the
seeker's latest message is read as any client's. Nothing is tuned on dialogues, and titles are found in the text, not
taken from its marks. Lists are retrieval's, ranking's, and both by the sum of their places.
"""

import argparse
import json
from pathlib import Path

import torch

from m6rec.cli import tuned_runs
from m6rec.metrics.conversation import naive_repeat, recall
from m6rec.serving import recommender as serving
from m6rec.serving.recommender import Recommender
from m6rec.tasks.chat import Message, read
from m6rec.text import dialogues
from m6rec.text.lexicon import Lexicon, tokens
from m6rec.text.past import Past
from m6rec.types import Item, User

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("redial", type=Path, help="folder of ReDial")
    parser.add_argument("--runs", type=Path, default=Path("runs/demo"))
    parser.add_argument("--states", default="", help="folder of states")
    parser.add_argument("--count", type=int, default=300, help="dialogues")
    parser.add_argument("--weights", type=float, nargs="+", default=[serving.QUERY_WEIGHT], help="of the words")
    given = parser.parse_args()
    torch.set_num_threads(1)
    made, retrieve, rank = tuned_runs(
        given.runs / "data", given.runs / "retrieve-0", given.runs / "like-0", states=given.states
    )
    log = made.split.log
    marks = films(given.redial, dict(log.items))
    catalogue = {item.id: item for item in marks.values()}
    recommender = Recommender(retrieve, rank, log, Past(log.items, made.domain.likes).observe_all(log.events))
    recommender.delete([item for item in log.items if item not in catalogue])
    recommender.upsert([item for item in catalogue.values() if item.id not in log.items])
    lexicon = Lexicon(recommender.items.values())
    asked = questions(given.redial / "valid_1000_raw_linked.jsonl", marks, given.count)
    targets, named = [row[1] for row in asked], [row[2] for row in asked]
    table = {"naive repeat": naive_repeat(named)}
    for weight in given.weights:
        serving.QUERY_WEIGHT = weight
        found = [recommender.suggest(read(messages, lexicon), User("")) for messages, _, _ in asked]
        table |= {f"{name}, words {weight}": [one[name] for one in found] for name in found[0]}
    num_films, num_known = len(catalogue), len(catalogue.keys() & log.items.keys())
    print(f"{given.count} dialogues, {len(asked)} turns, {num_films} films, {num_known} of them in MovieLens")
    for name, lists in table.items():
        values = "  ".join(f"R@{k} {recall(lists, targets, named, k):.3f}" for k in CUTS)
        print(f"{name:28} {values}", flush=True)


if __name__ == "__main__":
    main()
