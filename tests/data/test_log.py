import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m6rec.data.dataset import Dataset, load, save
from m6rec.data.feedback import Rule
from m6rec.data.log import Log, without_repeats
from m6rec.data.read import read
from m6rec.data.schema import Columns
from m6rec.data.split import TEST, TRAIN, VALID, Split, leave_one_out, split_by_item, split_by_time, split_by_user
from m6rec.errors import AssetError, ConfigError, DataError
from m6rec.types import Event, Item, User

EVENTS = {"user": [1, 2, 1], "item": ["b", "a", "a"], "time": [30, 10, 20], "value": [5, 1, 4.5]}
ITEMS = {"item": ["a", "b"], "title": ["Alien", "Brazil"], "category": ["Horror|Sci-Fi", None], "year": [1979, None]}
USERS = {"user": [1, 2], "age": [24.0, float("nan")], "job": ["writer", ""]}


def small(**columns: list) -> pl.DataFrame:
    return pl.DataFrame(EVENTS | columns, strict=False)


def test_tables_become_a_sorted_log() -> None:
    log = read(small(), pl.DataFrame(ITEMS), pl.DataFrame(USERS))
    assert log == Log(
        events=(Event("2", "a", 10, 1.0), Event("1", "a", 20, 4.5), Event("1", "b", 30, 5.0)),
        items={"a": Item("a", "Alien", ("Horror", "Sci-Fi"), {"year": 1979}), "b": Item("b", "Brazil")},
        users={"1": User("1", {"age": 24.0, "job": "writer"}), "2": User("2")},
    )
    assert repr(log) == "Log(3 events, 2 items, 2 users, 0 dropped)"


@pytest.mark.parametrize("kind", ["polars", "lazy", "pandas", "arrow", "duckdb", ".parquet", ".csv", ".tsv"])
def test_every_kind_of_table_gives_the_same_log(kind: str, tmp_path: Path) -> None:
    def table(name: str, columns: dict):
        frame = pl.DataFrame(columns, strict=False)
        path = tmp_path / f"{name}{kind}"
        if kind == "pandas":
            return pd.DataFrame(columns, index=range(7, 7 + frame.height))
        if kind == ".parquet":
            frame.write_parquet(path)
        elif kind in (".csv", ".tsv"):
            frame.fill_nan(None).write_csv(path, separator="," if kind == ".csv" else "\t")
        else:
            return {
                "polars": frame,
                "lazy": frame.lazy(),
                "arrow": frame.to_arrow(),
                "duckdb": duckdb.from_arrow(frame.to_arrow()),
            }[kind]
        return path

    log = read(table("events", EVENTS), table("items", ITEMS), table("users", USERS))
    assert log == read(small(), pl.DataFrame(ITEMS), pl.DataFrame(USERS))


def test_four_columns_are_enough_and_ties_keep_their_order() -> None:
    events = {"who": ["x", "x", "y"], "title": ["B", "A", "B"], "when": [5, 5, 5], "category": ["c", "", "d"]}
    log = read(pl.DataFrame(events), columns=Columns(user="who", time="when"))
    assert [(event.user, event.item, event.value) for event in log.events] == [
        ("x", "B", None),
        ("x", "A", None),
        ("y", "B", None),
    ]
    assert log.items == {"B": Item("B", "B", ("c",)), "A": Item("A", "A")}
    assert log.users == {"x": User("x"), "y": User("y")}


def test_text_files_keep_leading_zeros_and_type_details(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user,item,time\n007,01,1704067200\n7,1,1704067201.9\n")
    (tmp_path / "i.csv").write_text("item,title,zip,year,score\n01,A,02115,1999,0.5\n1,B,10000,,1\n")
    log = read(tmp_path / "e.csv", tmp_path / "i.csv")
    assert [(event.user, event.item, event.time) for event in log.events] == [
        ("007", "01", 1704067200),
        ("7", "1", 1704067201),
    ]
    assert log.items["01"].details == {"zip": "02115", "year": 1999, "score": 0.5}
    assert log.items["1"].details == {"zip": "10000", "score": 1.0}


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"user": [1, None, 2]}, "row 2, column 'user': None is empty"),
        ({"user": [1, 2.5, 2]}, "row 2, column 'user': 2.5 is not an id"),
        ({"user": [True, True, False]}, "column 'user' is of type Boolean"),
        ({"item": ["b", "a", "zz"]}, "row 3, column 'item': 'zz' is not in the table of items"),
        ({"user": [1, 2, 9]}, "row 3, column 'user': 9 is not in the table of users"),
        ({"time": [1, -1, 2]}, "row 2, column 'time': -1 is before 1970"),
        ({"time": ["1", "soon", "2"]}, "row 2, column 'time': 'soon' is not a time"),
        ({"time": [1, None, 2]}, "row 2, column 'time': None is not a time"),
        ({"time": [1.0, float("nan"), 2.0]}, "row 2, column 'time': nan is not a time"),
        ({"time": [1, 2, 1_700_000_000_000]}, "row 3, column 'time': 1700000000000 is not a time like the others"),
        ({"time": [[1], [2], [3]]}, "column 'time' is of type List"),
        ({"value": [1.0, 2.0, float("inf")]}, "row 3, column 'value': inf is not a number"),
        ({"value": ["1", "good", "bad"]}, r"row 2, column 'value': 'good' is not a number \(2 such rows\)"),
        ({"text": ["", None, "x" * 20_001]}, "row 3, column 'text': 'xxx.*… is longer than 20000"),
    ],
)
def test_a_bad_event_is_named_or_dropped_and_counted(column: dict, message: str) -> None:
    tables = (small(**column), pl.DataFrame(ITEMS), pl.DataFrame(USERS))
    with pytest.raises(DataError, match=message):
        read(*tables)
    if "row" in message:
        log = read(*tables, on_error="drop")
        assert len(log.events) == 3 - sum(log.dropped.values()) < 3
        assert all(key.startswith(f"events: {next(iter(column))} ") for key in log.dropped)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"title": ["A", " "]}, "items: row 2, column 'title': ' ' is empty"),
        ({"title": ["A", "B" * 2001]}, "items: row 2, column 'title'.*longer than 2000"),
        ({"item": ["a", "a"]}, "items: row 2, column 'item': 'a' is a duplicate id"),
        ({"tags": [{"x": 1}, {"x": 2}]}, "items: column 'tags' is of type Struct"),
    ],
)
def test_a_bad_item_is_named(column: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(small(), pl.DataFrame(ITEMS | column))


def test_dropping_an_item_drops_its_events() -> None:
    log = read(small(), pl.DataFrame(ITEMS | {"title": ["A", None]}), on_error="drop")
    assert list(log.items) == ["a"]
    assert log.dropped == {"items: title is empty": 1, "events: item is not in the table of items": 1}


def test_missing_columns_and_tables(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"events: column 'userr' is missing\. Did you mean 'user'\? Present are: user, item, time"
    ):
        read(small(), pl.DataFrame(ITEMS), columns=Columns(user="userr"))
    with pytest.raises(DataError, match=r"events: column 'user' is missing.*--columns role=column"):
        read(small().rename({"user": "whoever"}), pl.DataFrame(ITEMS))
    with pytest.raises(DataError, match="column 'rating' is missing"):  # named on purpose, so it has to be there
        read(small(), pl.DataFrame(ITEMS), columns=Columns(value="rating"))
    with pytest.raises(DataError, match=r"nowhere\.csv can't be read"):
        read(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match=r"allowed are \.csv, \.tsv, \.txt, \.jsonl and \.parquet"):
        read("events.xlsx")
    with pytest.raises(DataError, match="a dict is not a table"):
        read({"user": [1]})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="on_error is 'ignore'"):
        read(small(), on_error="ignore")  # type: ignore[arg-type]


def test_no_time() -> None:
    log = read(small(), pl.DataFrame(ITEMS), columns=Columns(time=None))
    assert [(event.time, event.item) for event in log.events] == [(0, "b"), (0, "a"), (0, "a")]
    with pytest.raises(ConfigError, match="no time to split by"):
        split_by_time(log)


def made(times: list[int], users: list[str]) -> Log:
    events = [Event(user, f"i{n % 7}", time) for n, (time, user) in enumerate(zip(times, users, strict=True))]
    items = {f"i{n}": Item(f"i{n}", f"Item {n}") for n in range(7)}
    return Log(tuple(sorted(events, key=lambda event: event.time)), items, {user: User(user) for user in users})


logs = st.lists(st.tuples(st.integers(1, 50), st.sampled_from("abcd")), max_size=60).map(
    lambda rows: made([time for time, _ in rows], [user for _, user in rows])
)


@settings(deadline=None)
@given(logs, st.floats(0, 0.49), st.floats(0, 0.49))
def test_split_by_time_lets_nobody_see_the_future(log: Log, valid: float, test: float) -> None:
    split = split_by_time(log, valid=valid, test=test)
    assert np.all(np.diff(split.part.astype(int)) >= 0)
    assert len(split.indices(TEST)) == round(len(log.events) * test)
    assert len(split.indices(VALID)) == round(len(log.events) * valid)


@settings(deadline=None)
@given(logs)
def test_leave_one_out_holds_out_each_last_event(log: Log) -> None:
    split = leave_one_out(log)
    for user, count in Counter(event.user for event in log.events).items():
        parts = [part for event, part in zip(log.events, split.part, strict=True) if event.user == user]
        assert parts == ([TRAIN] * (count - 2) + [VALID, TEST] if count >= 3 else [TRAIN] * count)


@settings(deadline=None)
@given(logs, st.integers(0, 5))
@pytest.mark.parametrize(("way", "field"), [(split_by_item, "item"), (split_by_user, "user")])
def test_splits_by_item_and_by_user_keep_them_whole(way, field: str, log: Log, seed: int) -> None:
    split = way(log, valid=0.3, test=0.3, seed=seed)
    found = [{getattr(log.events[at], field) for at in split.indices(part)} for part in (TRAIN, VALID, TEST)]
    assert len(set.union(*found)) == sum(map(len, found))
    assert np.array_equal(split.part, way(log, valid=0.3, test=0.3, seed=seed).part)


@pytest.mark.parametrize(("valid", "test"), [(-0.1, 0.1), (0.5, 0.5), (0, 1), (float("nan"), 0.1)])
def test_fractions_that_leave_nothing_to_train(valid: float, test: float) -> None:
    with pytest.raises(ConfigError, match="fractions"):
        split_by_time(made([1, 2], ["a", "b"]), valid=valid, test=test)


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
details = st.dictionaries(words, st.one_of(words, st.integers(), st.floats(allow_nan=False)), max_size=3)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.builds(Event, words, words, st.integers(0, 2**40), st.floats(allow_nan=False), words), max_size=5),
    st.lists(st.builds(Item, words, words, st.lists(words, max_size=3).map(tuple), details), max_size=4),
    st.lists(st.builds(User, words, details), max_size=4),
    st.dictionaries(words, st.integers(0, 9), max_size=2),
)
def test_a_saved_log_comes_back_exactly(
    events: list[Event], items: list[Item], users: list[User], dropped: dict[str, int]
) -> None:
    log = Log(tuple(events), {item.id: item for item in items}, {user.id: user for user in users}, dropped)
    with tempfile.TemporaryDirectory() as folder:
        where, part = Path(folder) / "log", np.arange(len(events), dtype=np.uint8) % 3
        save(Dataset(split=Split(Log((), {}, {}), part[:0]), domain="generic", protocol="time"), where)
        made = Dataset(split=Split(log, part), domain="books", protocol="item", rule=Rule(test=">", number=2), why="so")
        save(made, where)  # replaces the former
        kept = load(where)
        back = kept.split.log
        assert len(list(where.glob("data-*"))) == 1
    assert np.array_equal(kept.split.part, part)
    assert replace(kept, split=made.split) == made
    assert back == log
    assert list(back.items) == list(log.items)
    for mine, theirs in zip(back.items.values(), log.items.values(), strict=True):
        assert [(key, type(value)) for key, value in mine.details.items()] == [
            (key, type(value)) for key, value in theirs.details.items()
        ]


def empty() -> Dataset:
    return Dataset(split=Split(Log((), {}, {}), np.zeros(0, np.uint8)), domain="generic", protocol="time")


def test_save_spares_other_folders_and_load_names_damage(tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("dear")
    with pytest.raises(DataError, match="something else than a prepared log"):
        save(empty(), tmp_path)
    with pytest.raises(AssetError, match="holds no prepared log"):
        load(tmp_path)
    save(empty(), tmp_path / "log")
    (items,) = (tmp_path / "log").glob("data-*/items.parquet")
    items.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="damaged"):
        load(tmp_path / "log")
    items.unlink()
    with pytest.raises(DataError, match="damaged"):
        load(tmp_path / "log")
    save(empty(), tmp_path / "log")
    assert not load(tmp_path / "log").split.log.events
    manifest = tmp_path / "log" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 0'))
    with pytest.raises(AssetError, match="another version"):
        load(tmp_path / "log")


@pytest.mark.parametrize("step", ["write_parquet", "fsync", "replace"])
def test_a_save_that_stops_leaves_the_former_data_set_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Whether the disk is full at the first file, at the last, or where the manifest is put in its place."""
    before = sorted(path.name for path in tmp_path.iterdir())
    save(empty(), tmp_path / "log")
    before = sorted(path.name for path in (tmp_path / "log").iterdir())

    def full(*given: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    owner = {"write_parquet": pl.DataFrame, "fsync": os, "replace": os}[step]
    with monkeypatch.context() as patched:
        patched.setattr(owner, step, full)
        with pytest.raises(OSError, match="No space"):
            save(empty(), tmp_path / "log")
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == before
    assert load(tmp_path / "log").domain == "generic"


def test_a_reader_finds_a_data_set_at_every_moment_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(empty(), tmp_path)
    seen = []
    for owner, step in ((shutil, "rmtree"), (os, "replace"), (os, "fsync")):
        real = getattr(owner, step)

        def looking(*given: object, real: Callable[..., object] = real, **options: object) -> object:
            seen.append(load(tmp_path).domain)
            done = real(*given, **options)
            seen.append(load(tmp_path).domain)
            return done

        monkeypatch.setattr(owner, step, looking)
    save(empty(), tmp_path)
    assert set(seen) == {"generic"}
    assert len(seen) >= 12


def test_repeats_are_dropped_and_counted() -> None:
    rows = {"user": [1, 1, 2, 1], "item": ["a"] * 4, "time": [5, 5, 5, 6], "value": [1, 2, 3, 4]}
    log = read(pl.DataFrame(rows), pl.DataFrame(ITEMS))
    assert [event.value for event in log.events] == [1, 3, 4]
    assert log.dropped == {"events: an earlier one has the same user, item and time": 1}
    assert log.reading.repeats == 1
    once = without_repeats(log)
    assert [event.value for event in once.events] == [1, 3]
    assert once.dropped["events: its user had done the same with the item before"] == 1
    assert without_repeats(once) is once
    assert [event.value for event in read(pl.DataFrame(rows), pl.DataFrame(ITEMS), duplicates="keep").events] == [
        1,
        2,
        3,
        4,
    ]
