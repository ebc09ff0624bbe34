"""Conversations about items: ReDial, people who recommend films to each other (Li et al., NeurIPS 2018)."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m6rec.errors import DataError

_MARK = re.compile(r"@(\d+)")
_TOLD = (False, True, None)  # 0, 1, and 2: did not say


@dataclass(frozen=True, slots=True)
class Turn:
    """One message.

    Attributes:
        by_seeker: Whether the person wrote it who looks for a film; else the one who recommends.
        text: The message, with titles in place of the marks of films.
        items: Ids of the films it names, in their order.
    """

    by_seeker: bool
    text: str
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one of the two people says after the conversation about a film that it named.

    Attributes:
        suggested: Whether the recommender brought it up, not the seeker.
        seen: Whether the seeker has seen it; None if that was not said.
        liked: Whether the seeker liked it, or expects to; None if that was not said.
    """

    suggested: bool
    seen: bool | None
    liked: bool | None


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation between one who looks for a film and one who recommends.

    Attributes:
        id: Unique within the set.
        turns: The messages, in their order.
        titles: Title of each film that is named, by its id.
        said: The seeker's verdicts (``initiatorQuestions``), by film; empty if the form was not filled in.
        understood: The recommender's account of them (``respondentQuestions``).
    """

    id: str
    turns: tuple[Turn, ...]
    titles: Mapping[str, str]
    said: Mapping[str, Verdict]
    understood: Mapping[str, Verdict]


def read(path: str | Path) -> tuple[Dialogue, ...]:
    """Reads ReDial as published: a dialogue a line, in JSON.

    A mark of a film that ``movieMentions`` has no title for ("@50 first dates") stays as text and names nothing.

    Raises:
        DataError: The file can't be read, or a line isn't such a dialogue; lines count from 1.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read ({error}); give a file of ReDial, such as train_data.jsonl") from error
    dialogues = []
    for number, line in enumerate(lines, 1):
        try:
            dialogues.append(_dialogue(json.loads(line)))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(f"{path}, line {number} is not a dialogue of ReDial ({error!r})") from error
    return tuple(dialogues)


def _dialogue(row: dict[str, Any]) -> Dialogue:
    # Where no film is named, or a form is left empty, ReDial has [] in place of {}.
    titles = {key: " ".join(title.split()) for key, title in dict(row["movieMentions"]).items() if title}
    turns = tuple(
        Turn(
            by_seeker=message["senderWorkerId"] == row["initiatorWorkerId"],
            text=_MARK.sub(lambda mark: titles.get(mark[1], mark[0]), message["text"]),
            items=tuple(film for film in _MARK.findall(message["text"]) if film in titles),
        )
        for message in row["messages"]
    )
    said, understood = (
        {
            film: Verdict(bool(form["suggested"]), _TOLD[form["seen"]], _TOLD[form["liked"]])
            for film, form in dict(row[f"{who}Questions"]).items()
            if film in titles
        }
        for who in ("initiator", "respondent")
    )
    return Dialogue(str(row["conversationId"]), turns, titles, said, understood)
