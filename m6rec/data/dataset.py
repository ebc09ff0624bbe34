"""A log on disk: Parquet files and a card."""

import json
import shutil
import uuid
from pathlib import Path

import polars as pl

from m6rec.data.log import Log
from m6rec.errors import DataError
from m6rec.types import Event, Item, User

_CARD = "log.json"
_Schema = dict[str, pl.DataType | type[pl.DataType]]
_EVENT: _Schema = {"user": pl.String, "item": pl.String, "time": pl.Int64, "value": pl.Float64, "text": pl.String}
_ITEM: _Schema = {"id": pl.String, "title": pl.String, "categories": pl.List(pl.String), "details": pl.String}
_USER: _Schema = {"id": pl.String, "details": pl.String}


def save(log: Log, folder: str | Path) -> None:
    """Writes a log to a folder of Parquet files that ``load`` reads back exactly.

    The folder appears, or replaces the log that was there, only when it is complete.

    Raises:
        DataError: The folder holds something that isn't a log.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / _CARD).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} holds something else than a log; give a new folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    fresh.mkdir()
    try:
        for name, rows, schema in (
            ("events", log.events, _EVENT),
            ("items", log.items.values(), _ITEM),
            ("users", log.users.values(), _USER),
        ):
            columns = {column: [getattr(row, column) for row in rows] for column in schema}
            if "details" in columns:  # a mapping of its own for each row: JSON keeps its types and order
                columns["details"] = [json.dumps(dict(details), ensure_ascii=False) for details in columns["details"]]
            pl.DataFrame(columns, schema=schema).write_parquet(fresh / f"{name}.parquet")
        (fresh / _CARD).write_text(json.dumps({"dropped": dict(log.dropped)}, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            old = fresh.with_name(fresh.name + ".old")
            folder.replace(old)
            fresh.replace(folder)
            shutil.rmtree(old)
        else:
            fresh.replace(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def load(folder: str | Path) -> Log:
    """Reads a log that ``save`` wrote.

    Raises:
        DataError: The folder isn't a saved log, or is damaged.
    """
    folder = Path(folder)
    try:
        card = json.loads((folder / _CARD).read_text(encoding="utf-8"))
        events, items, users = (
            pl.read_parquet(folder / f"{name}.parquet", columns=list(schema))
            for name, schema in (("events", _EVENT), ("items", _ITEM), ("users", _USER))
        )
        return Log(
            events=tuple(map(Event, *events.to_dict(as_series=False).values())),
            items={
                key: Item(key, title, tuple(categories), json.loads(details))
                for key, title, categories, details in items.iter_rows()
            },
            users={key: User(key, json.loads(details)) for key, details in users.iter_rows()},
            dropped=card["dropped"],
        )
    except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{folder} is not a saved log or is damaged ({error}); write it again.") from error
