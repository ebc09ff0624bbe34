"""Conversations: whether feedback is heeded, and how the films are found that people recommend to each other.

- scripted (``tests.conversations``): a request, feedback on what was recommended, and whether all that is recommended
  next goes the asked way; half of the cases for a user with a history, half for one who is not known;
- ReDial (``benchmarks.dialogues``): at each message in which the recommender names films, the conversation before it is
  read and films are recommended, those named before left out, as they are from the targets. Beside it stand what was
  named before, the latest first (``naive repeat``), and the films named most in dialogues that are not measured.
  Nothing of ours has been tuned on dialogues.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from benchmarks.dialogues import films, questions
from m6rec.tasks.chat import read
from m6rec.text.lexicon import Lexicon

from benchmarks.setup import AbsentError, Claims, Setup, research
from m6rec.metrics.conversation import naive_repeat, recall
from m6rec.metrics.words import catalogue_validity
from m6rec.report import Row, Table
from m6rec.serving.recommender import Recommender
from m6rec.text import dialogues
from m6rec.types import Item, User
from tests import conversations

CUTS = (10, 1, 50)
REDIAL = "redial/valid_1000_raw_linked.jsonl"
OURS = "m6rec"


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    recommender, _, made, past = setup.recommender()
    known = next(user for user in made.split.log.users if len(past.history(user)) >= 20)
    items = made.split.log.items
    measured, claims = _scripted(recommender, items, made.domain.noun, known, 30 if setup.quick else 200)
    try:
        measured["tables"] = (_redial(recommender, items, 20 if setup.quick else 300),)
    except AbsentError as error:
        measured["absent"] = [str(error)]
    return measured, claims


def _scripted(
    recommender: Recommender, items: Mapping[str, Item], noun: str, known: str, count: int
) -> tuple[dict[str, Any], Claims]:
    lexicon, titles = Lexicon(items.values()), [item.title for item in items.values()]
    heeded: dict[str, list[bool]] = defaultdict(list)
    named, missed = list[str](), list[dict[str, Any]]()
    for number, case in enumerate(conversations.cases(list(items.values()), noun, count)):
        replies = conversations.play(recommender, case, known if number % 2 else "")
        named += [one.item.title for reply in replies for one in reply.items]
        heeded[case.sort].append(conversations.holds(case, *replies, lexicon))
        if not heeded[case.sort][-1]:
            missed.append({"sort": case.sort, "feedback": case.feedback, "reply": replies[1].text})
    verdicts = [one for of_sort in heeded.values() for one in of_sort]
    validity = catalogue_validity(named, titles)
    claims: Claims = [
        ("recommended titles that exist, as a share", validity, ">=", 1),
        (f"{count} scripted cases: feedback changes the next items as asked", sum(verdicts) / count, ">=", 0.9),
    ]
    by_sort = {sort: sum(one) / len(one) for sort, one in heeded.items()}
    return {"titles": len(named), "heeded": by_sort, "missed": missed}, claims


def _redial(recommender: Recommender, items: Mapping[str, Item], count: int) -> Table:
    """Recall, the catalogue being ReDial's; ``items`` are those of the log."""
    path = research(REDIAL)
    marks = films(path.parent, dict(items))
    catalogue = {item.id: item for item in marks.values()}
    recommender.upsert([item for item in catalogue.values() if item.id not in items])
    recommender.delete([item for item in items if item not in catalogue])
    lexicon = Lexicon(catalogue.values())
    asked = questions(path, marks, count)
    told = [turn for dialogue in dialogues.read(path)[count:] for turn in dialogue.turns]
    popular = [
        item for item, _ in Counter(marks[one].id for turn in told for one in turn.items if one in marks).most_common()
    ]
    targets, named = [row[1] for row in asked], [row[2] for row in asked]
    suggested = [recommender.suggest(read(messages, lexicon), User("")) for messages, _, _ in asked]
    lists = {
        OURS: [[one.item.id for one in ranked] for ranked in suggested],
        "named most": [[item for item in popular if item not in before] for before in named],
        "naive repeat": naive_repeat(named),
    }
    rows = tuple(
        Row(
            method=method,
            metrics={f"R@{cut}": (recall(found, targets, named, cut),) for cut in CUTS}
            | {f"R@{cut}, repeats too": (recall(found, targets, named, cut, count_repeats=True),) for cut in CUTS},
        )
        for method, found in lists.items()
    )
    logged = len(catalogue.keys() & items.keys())
    note = f"{len(asked)} messages of {count} dialogues; {len(catalogue)} films, {logged} of them in the log."
    return Table(title="ReDial", metric=f"R@{CUTS[0]}", rows=rows, ours=OURS, note=note)
