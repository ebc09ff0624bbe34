"""Dialogues of one person who looks for a film and one who recommends: ReDial (Li et al., NeurIPS 2018), as published.

A line is {"conversationId", "initiatorWorkerId", "messages": [{"senderWorkerId", "text"}], "movieMentions",
"initiatorQuestions"}; a text marks films as "@111776". Each dialogue is a user, and each message an event: an
``utterance`` of the seeker's, or a ``response`` to them. Before an utterance stands what the seeker thinks of each film
that it names, by the form that they filled in after the dialogue. Films have no ids in a text but titles in quotes.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from m6rec.data.lines import Schema, table
from m6rec.data.log import Log
from m6rec.data.read import read
from m6rec.data.schema import Columns
from m6rec.domains import movielens
from m6rec.domains.grouplens import title_and_year

_MARK = re.compile(r"@(\d+)")
_DATED = re.compile(r"(.*\S)\s*(\(\d{4}\))")
_DISLIKED = 0
_ROWS = pl.List(pl.Struct({"item": pl.String, "kind": pl.String, "text": pl.String, "message": pl.Int64}))
_FILMS = pl.List(pl.Struct({"item": pl.String, "title": pl.String}))


def _load(path: Path) -> Log:
    schema: Schema = {"user": pl.String, "rows": _ROWS, "films": _FILMS}
    made = table(path, schema, _dialogue, of="a file of ReDial, such as train_data.jsonl")
    rows = made.select("user", "rows").explode("rows").unnest("rows").drop_nulls("kind")
    rows = rows.with_columns(time=1 + pl.struct("user", "message").rle_id().cast(pl.Int64))
    films = made.select("films").explode("films").unnest("films").drop_nulls().unique("item", maintain_order=True)
    return read(rows.drop("message"), films.select("item", *title_and_year()), columns=Columns(text="text"))


def _dialogue(row: Any) -> Sequence[object]:
    # Where no film is named, or a form is left empty, ReDial has [] in place of {}.
    titles = {film: " ".join(title.split()) for film, title in dict(row["movieMentions"]).items() if title}
    liked = {film: form["liked"] for film, form in dict(row["initiatorQuestions"]).items()}
    rows: list[dict[str, object]] = []
    for number, message in enumerate(row["messages"]):
        asks = message["senderWorkerId"] == row["initiatorWorkerId"]
        films = dict.fromkeys(film for film in _MARK.findall(message["text"]) if film in titles and asks)
        kinds = {film: "dislike" if liked.get(film) == _DISLIKED else "like" for film in films}
        rows += [{"item": film, "kind": kind, "text": "", "message": number} for film, kind in kinds.items()]
        if text := _worded(message["text"], titles):
            kind = "utterance" if asks else "response"
            rows.append({"item": None, "kind": kind, "text": text, "message": number})
    return str(row["conversationId"]), rows, [{"item": film, "title": title} for film, title in titles.items()]


def _worded(text: str, titles: Mapping[str, str]) -> str:
    """A message in which every double quote stands around a title; a mark without a title stays as it is."""

    def named(mark: re.Match[str]) -> str:
        title = titles.get(mark[1], "").replace('"', "'")
        dated = _DATED.fullmatch(title)
        return f'"{dated[1]}" {dated[2]}' if dated else f'"{title}"' if title else mark[0]

    return _MARK.sub(named, " ".join(text.replace('"', "'").split()))


DOMAIN = replace(movielens.DOMAIN, name="redial", assets=(), load=_load)
