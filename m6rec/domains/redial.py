"""Dialogues of one person who looks for a film and one who recommends: ReDial (Li et al., NeurIPS 2018), as published.

A line has {"conversationId", "initiatorWorkerId", "messages": [{"senderWorkerId", "text"}], "movieMentions",
"initiatorQuestions"}; a text marks films as "@111776". Each dialogue is a user, and each message an event: an
``utterance`` of the seeker's, or a ``response`` to them. Before an utterance stands what the seeker thinks of each film
that it names, by the form that they filled in after the dialogue. Films stand in a text by their titles, in quotes.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from m6rec.data.lines import Schema, table
from m6rec.data.log import Log
from m6rec.data.read import read
from m6rec.domains import movielens
from m6rec.domains.grouplens import title_and_year

_MARK, _DATED = re.compile(r"@(\d+)"), re.compile(r"^(.+?)( \(\d{4}\))?$")
_ROWS = pl.List(pl.Struct(dict.fromkeys(("item", "kind", "text"), pl.String) | {"message": pl.Int64}))
_FILMS = pl.List(pl.Struct({"item": pl.String, "title": pl.String}))
_SCHEMA: Schema = {"user": pl.String, "rows": _ROWS, "films": _FILMS}


def _load(path: Path) -> Log:
    made = table(path, _SCHEMA, _dialogue, of="a file of ReDial, such as train_data.jsonl")
    rows = made.select("user", "rows").explode("rows").unnest("rows").drop_nulls("kind")
    rows = rows.with_columns(time=1 + pl.struct("user", "message").rle_id().cast(pl.Int64)).drop("message")
    films = made.select("films").explode("films").unnest("films").drop_nulls().unique("item", maintain_order=True)
    return read(rows, films.select("item", *title_and_year()))


def _dialogue(row: Any) -> Sequence[object]:
    # Where no film is named, or a form is left empty, ReDial has [] in place of {}.
    titles = {film: " ".join(title.split()) for film, title in dict(row["movieMentions"]).items() if title}
    quoted = {film: _DATED.sub(r'"\1"\2', title.replace('"', "'")) for film, title in titles.items()}
    disliked = {film for film, form in dict(row["initiatorQuestions"]).items() if form["liked"] == 0}
    rows: list[dict[str, object]] = []
    for number, message in enumerate(row["messages"]):
        asks = message["senderWorkerId"] == row["initiatorWorkerId"]
        for film in dict.fromkeys(film for film in _MARK.findall(message["text"]) if film in titles and asks):
            rows.append({"item": film, "kind": "dislike" if film in disliked else "like", "message": number})
        said = " ".join(message["text"].replace('"', "'").split())  # double quotes stand around titles alone
        if text := _MARK.sub(lambda mark: quoted.get(mark[1], mark[0]), said):
            rows.append({"kind": "utterance" if asks else "response", "text": text, "message": number})
    return str(row["conversationId"]), rows, [{"item": film, "title": title} for film, title in titles.items()]


DOMAIN = replace(movielens.DOMAIN, name="redial", assets=(), load=_load)
