"""Files, folders, databases and frames as people have them; each is read, or refused with what to do."""

import gzip
import os
import shutil
import sqlite3
import subprocess
import tempfile
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from m6rec.data import databases
from m6rec.data.read import read
from m6rec.data.schema import Columns, normalised, recognise
from m6rec.errors import ConfigError, DataError

ROWS = [("u1", "007", 1_600_000_000, "Heat", 5), ("u2", "8", 1_600_000_100, "Brazil; Part 2", 3)]
HEADER = ("user_id", "movieId", "timestamp", "movie_title", "rating")


def text(separator=",", rows=ROWS, header=HEADER, end="\n"):
    return end.join(separator.join(map(str, row)) for row in (header, *rows)) + end


def rows_of(log):
    return [(e.user, e.item, e.time, log.items[e.item].title, e.value) for e in log.events]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", text().encode()),
        ("A.CSV", text().encode("utf-8-sig")),
        ("a.csv", text(end="\r").encode()),
        ("a.csv", ("\n\n" + text().replace("\n", "\n\n")).encode()),
        ("a.txt", text("|").encode()),
        ("a.tsv", text("\t").encode("utf-16")),
        ("a.csv", text("\t").encode("utf-16-le")),
        ("a.csv.gz", gzip.compress(text().encode())),
        ("named_csv_but_zipped.csv", gzip.compress(text().encode())),
        ("a.csv.zst", pa.compress(text().encode(), "zstd", asbytes=True)),
        ("a.csv", text(";", [(*row[:3], f'"{row[3]}"', row[4]) for row in ROWS]).encode()),
        ("a.inter", text("\t", header=("user_id:token", "item_id:token", "timestamp:float", "title:token_seq", "rating:float")).encode()),  # noqa: E501
    ],
)  # fmt: skip
def test_a_text_file_however_it_is_written(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert rows_of(read(tmp_path / name)) == ROWS


def test_quotes_and_escapes(tmp_path):
    (tmp_path / "a.csv").write_text('user,item,title\nu,1,"He said ""hi"", left"\nu,2,12" vinyl\nu,3,"two\nlines"\n')
    titles = ['He said "hi", left', '12" vinyl', "two\nlines"]
    assert [item.title for item in read(tmp_path / "a.csv").items.values()] == titles
    (tmp_path / "b.csv").write_text('user,item,title\nu,1,"He said \\"hi\\", left"\nu,2,plain\n')
    assert read(tmp_path / "b.csv").items["1"].title == 'He said "hi", left'
    (tmp_path / "c.tsv").write_text('user\titem\ttitle\nu\t1\t"Heroes\nu\t2\t12" vinyl\n')
    assert [item.title for item in read(tmp_path / "c.tsv").items.values()] == ['"Heroes', '12" vinyl']


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("user,item,title\n", "the table holds no rows"),
        ("user,item,title\nu,1,a,b\nu,2,c\n", r"row 1 of .* has 4 fields \('u,1,a,b'\), but the header has 3"),
        ("user,item,title\nu,1,a\nu\n", r"row 2 of .* has 1 fields \('u'\), but the header has 3.*on-error drop"),
        ("1,31,2.5,1260759144\n1,32,3,1260759150\n", "no header.*Put a line such as user,item,time,title at its top"),
        ("user,item,user\nu,1,v\n", "column 'user' occurs twice"),
        (
            'user,item,title\nu,1,"Heroes\nu,2,b\nu,3,c\n',
            "row 1 of .*, column 'title': a double quote is opened and not",
        ),
        ("person,thing,when\nu,1,3\n", "column 'item' is missing. Present are: person, thing, when.*--columns"),
        (
            "user_id,userId,item\nu,v,1\n",
            "columns 'user_id' and 'userId' could both be the user.*--columns user=user_id",
        ),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_remedy(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.csv")


def test_lines_that_are_ragged_can_be_dropped_and_are_counted(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,title\nu,1,a,b\nu,2,c\n")
    log = read(tmp_path / "a.csv", on_error="drop")
    assert (len(log.events), log.dropped) == (1, {"events: a line with too many or too few fields": 1})


def test_what_is_not_utf8_is_said_or_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes("user,item,title\nu,1,Amélie\n".encode("latin-1"))
    log = read(tmp_path / "a.csv")
    assert log.items["1"].title == "Amélie"
    assert any("cp1252" in note and "iconv" in note for note in log.reading.notes)
    (tmp_path / "a.csv").write_bytes(b"user,item,title\nu,1,\x81\x8d\n")
    with pytest.raises(DataError, match=r"neither UTF-8 nor Windows-1252; convert it: iconv"):
        read(tmp_path / "a.csv")


def test_many_files_are_one_table(tmp_path):
    for number, row in enumerate(ROWS):
        (tmp_path / f"events-{number}.csv").write_text(text(rows=[row]))
    assert rows_of(read(f"{tmp_path}/events-*.csv")) == ROWS
    assert rows_of(read(tmp_path)) == ROWS
    (tmp_path / "events-2.csv").write_text("user,item\nu,1\n")
    with pytest.raises(DataError, match=r"events-2.csv and .*events-0.csv differ in the columns item, movieId"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"no file matches .*\.tsv"):
        read(f"{tmp_path}/*.tsv")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"holds no file that can be read"):
        read(tmp_path / "none")
    with pytest.raises(DataError, match=r"items: the table has columns of a user's behaviours.*pattern in quotes"):
        read(tmp_path / "events-0.csv", tmp_path / "events-1.csv")


def test_json_a_line_or_an_array(tmp_path):
    frame = pl.DataFrame(ROWS, schema=HEADER, orient="row")
    frame.write_ndjson(tmp_path / "a.jsonl")
    frame.write_json(tmp_path / "a.json")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    for name in ("a.jsonl", "a.json", "b.jsonl.gz"):
        assert rows_of(read(tmp_path / name)) == ROWS
    (tmp_path / "mixed.jsonl").write_text('{"user": 9, "item": "a"}\n{"user": "foo", "item": 7}\n')
    assert [(e.user, e.item) for e in read(tmp_path / "mixed.jsonl").events] == [("9", "a"), ("foo", "7")]
    (tmp_path / "bad.jsonl").write_text('{"user": 9, "item": "a"}\n{"user": \n')
    with pytest.raises(DataError, match=r"line 2 of .*bad.jsonl is no JSON object"):
        read(tmp_path / "bad.jsonl")


FRAME = pd.DataFrame(ROWS, columns=list(HEADER))


def test_pandas_frames_of_all_kinds():
    assert rows_of(read(FRAME)) == ROWS
    assert rows_of(read(FRAME.set_index(["user_id", "timestamp"]))) == ROWS
    assert rows_of(read(FRAME.set_index(np.array([7, 9])))) == ROWS
    mixed = FRAME.assign(user_id=pd.Series([9, "user_foo"], dtype=object))
    assert [event.user for event in read(mixed).events] == ["9", "user_foo"]
    with pytest.raises(DataError, match=r"holds no rows"):
        read(FRAME.head(0))
    with pytest.raises(DataError, match=r"column 'rating' occurs twice"):
        read(pd.concat([FRAME, FRAME[["rating"]]], axis=1))
    with pytest.raises(DataError, match=r"can't be read"):
        read(FRAME.assign(movie_title=pd.Series(["\ud800", "b"], dtype=object)))


def test_arrow_types_that_are_spelled_out():
    table = pa.table(
        {
            "user": pa.array(["u", "u"]).dictionary_encode(),
            "item": pa.RunEndEncodedArray.from_arrays([1, 2], ["a", "b"]),
            "time": pa.array([1_600_000_000_500, 1_600_000_001_000], pa.timestamp("ms", tz="UTC")),
            "value": pa.array(["1.5", "2"]).cast(pa.decimal128(5, 2)),
        }
    )
    assert [(e.user, e.item, e.time, e.value) for e in read(table).events] == [
        ("u", "a", 1_600_000_000, 1.5),
        ("u", "b", 1_600_000_001, 2.0),
    ]


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb"])
def test_a_table_of_a_database(tmp_path, scheme):
    file = tmp_path / "shop.db"
    connection = sqlite3.connect(file) if scheme == "sqlite" else duckdb.connect(file)
    connection.execute(
        "CREATE TABLE events (user_id VARCHAR, movieId VARCHAR, timestamp BIGINT, movie_title VARCHAR, rating DOUBLE)"
    )
    connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", ROWS)
    connection.commit()
    url = f"{scheme}:///{file}"
    connection.close()
    assert rows_of(read(url)) == rows_of(read(f"{url}#events")) == ROWS  # its only table
    assert rows_of(read(f"{url}#SELECT * FROM events WHERE rating > 4")) == ROWS[:1]
    with pytest.raises(DataError, match=r"has no table 'evens'; write one after '#'.*There are: events"):
        read(f"{url}#evens")
    with pytest.raises(DataError, match=r"there is no file"):
        read(f"{scheme}:///{tmp_path}/none.db")
    with pytest.raises(DataError, match=r"can't be read"):
        read(f"{url}#SELECT * FROM nowhere")
    with pytest.raises(DataError, match=r"can't be read"):
        read(f"{url}#WITH x AS (SELECT 1) DELETE FROM events")
    assert rows_of(read(url)) == ROWS


def test_sqlite_keeps_what_its_columns_hold(tmp_path):
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("CREATE TABLE events (user, item, time)")
        rows = [("01", 2**62 + 1, 1_600_000_000.123456), (7, "b", 1_600_000_000.123455)]
        connection.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
    log = read(f"sqlite:///{tmp_path}/a.db")
    assert [(event.user, event.item) for event in log.events] == [("7", "b"), ("01", str(2**62 + 1))]


def test_a_password_is_never_told():
    with pytest.raises(DataError) as told:
        read("postgresql://me:secret@127.0.0.1:1/shop#events")
    assert "secret" not in str(told.value)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """The URL of a server of this test's own."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found or (os.geteuid() == 0 and not shutil.which("runuser")):
        pytest.skip("PostgreSQL's server isn't installed (apt install postgresql)")
    pytest.importorskip("adbc_driver_postgresql", reason="pip install 'm6rec[postgres]'")
    folder = tmp_path_factory.mktemp("postgres")
    as_other = []
    if os.geteuid() == 0:  # the server refuses to run as root
        as_other = ["runuser", "-u", "postgres", "--"]
        for parent in (folder, *folder.parents):
            if parent == Path(tempfile.gettempdir()):
                break
            parent.chmod(0o755)
        shutil.chown(folder, "postgres")
    initdb, ctl = found[-1] / "initdb", found[-1] / "pg_ctl"
    data, options = folder / "data", f"-c listen_addresses='' -k {folder}"
    run = lambda *words: subprocess.run([*as_other, *map(str, words)], check=True, capture_output=True, cwd="/")  # noqa: E731
    run(initdb, "-D", data, "-A", "trust", "-U", "me", "--no-sync")
    run(ctl, "-D", data, "-w", "-o", options, "-l", folder / "log", "start")
    yield f"postgresql://me@/postgres?host={folder}"
    run(ctl, "-D", data, "-m", "immediate", "stop")


def test_a_table_of_postgres(postgres):
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(postgres) as connection, connection.cursor() as cursor:
        cursor.execute(
            'CREATE TABLE events (user_id TEXT, "movieId" TEXT, timestamp TIMESTAMPTZ, movie_title TEXT, rating NUMERIC(3, 1))'  # noqa: E501
        )
        for user, item, time, title, rating in ROWS:
            cursor.execute(f"INSERT INTO events VALUES ('{user}', '{item}', to_timestamp({time}), '{title}', {rating})")
        connection.commit()
    assert rows_of(read(f"{postgres}#events")) == ROWS
    with pytest.raises(DataError, match=r"has no table 'none'"):
        read(f"{postgres}#none")


def test_names_of_the_wild():
    for name, role in {
        "User ID": "user", "reviewerID": "user", "customer-id": "user", "asin": "item", "PRODUCT_ID": "item",
        "unixReviewTime": "time", "ts": "time", "Stars": "value", "eventType": "kind", "behavior": "kind",
        "reviewText": "text", "search_query": "query", "impression_id": "impression", "Item Name": "title",
        "genres": "category",
    }.items():  # fmt: skip
        assert recognise("events", [name], Columns(), [role]).of == {role: name}, name
    assert normalised("user_id:token") == "userid"
    found = recognise(
        "events", ["user", "session_id", "item", "rating", "label", "city", "zzz"], Columns(), ["user", "item", "value"]
    )
    assert found.of == {"user": "user", "item": "item", "value": "rating"}
    assert (found.context, found.unused) == (("city",), ("session_id", "label", "zzz"))
    assert ["not 'label'" in note for note in found.notes] == [False, True]


@pytest.mark.parametrize("given", ["user", "who=a", "user=a,user=b", "user="])
def test_columns_that_are_none(given):
    with pytest.raises(ConfigError, match=r"write role=column"):
        Columns.parse(given)


def test_columns_are_named_on_the_command_line(tmp_path):
    columns = Columns.parse("user=a, item=b,time=,context=x+y")
    assert columns == Columns(user="a", item="b", time=None, context=("x", "y"))
    frame = pl.DataFrame({"a": ["u"], "b": ["i"], "time": [5], "x": [1.5], "y": ["home"]})
    (event,) = read(frame, columns=columns).events
    assert (event.time, event.context) == (0, (("x", 1.5), ("y", "home")))


def test_searches_need_no_item_and_impressions_and_kinds_are_read():
    frame = pl.DataFrame(
        {
            "user": ["u"] * 4, "item": ["a", None, "b", None], "time": [1, 2, 3, 4], "event": ["addToCart", "Search", "view", None],  # noqa: E501
            "query": [None, "red shoes", "shoes", "hats"], "impression_id": ["p", None, None, None], "device": ["web"] * 4,  # noqa: E501
        }
    )  # fmt: skip
    log = read(frame)
    assert [(e.item, e.kind, e.text, e.impression) for e in log.events] == [
        ("a", "cart", "", "p"), ("", "search", "red shoes", ""), ("b", "view", "shoes", ""), ("", "search", "hats", ""),
    ]  # fmt: skip
    spoken = read(frame.with_columns(event=pl.Series(["cart", "utterance", "view", "response"])))
    assert [e.kind for e in spoken.events if not e.item] == ["utterance", "response"]
    assert list(log.items) == ["a", "b"]
    assert log.events[0].context == (("device", "web"),)
    with pytest.raises(DataError, match=r"row 2, column 'item': None is empty"):
        read(frame.with_columns(query=None, event=pl.lit("view")))
    with pytest.raises(
        DataError, match=r"column 'event' holds numbers.*--columns value=event, or --columns kind=event"
    ):
        read(frame.with_columns(event=pl.lit("1")))


def test_details_and_titles_of_events():
    frame = pl.DataFrame(
        {"user": ["u", "v"], "item": ["a", "a"], "title": [None, "Tom &amp; Jerry"], "description": ["A\x00cat", None], "price": [1.5, 2.0]}  # noqa: E501
    )  # fmt: skip
    log = read(frame)
    assert log.items["a"].title == "Tom & Jerry"
    assert log.items["a"].details == {"description": "A cat", "price": 1.5}
    with pytest.raises(DataError, match=r"column 'title' is empty in every row of item 'a'"):
        read(frame.with_columns(title=pl.lit(None, pl.String)))


@pytest.mark.parametrize("value", [["5 stars", "4"], ["inf", "1"], ["1e300", "1"]])
def test_a_value_that_is_none_is_named(value):
    with pytest.raises(DataError, match=r"column 'value': .* is not a number"):
        read(pl.DataFrame({"user": ["u", "u"], "item": ["a", "b"], "value": value}))


@pytest.mark.parametrize(
    ("value", "right"),
    [(["", "NaN"], [None, None]), (["true", "no"], [1, 0]), (["4,5", "3"], [4.5, 3]), ([True, None], [1, None])],
)
def test_values_as_they_are_written(value, right):
    log = read(pl.DataFrame({"user": ["u", "u"], "item": ["a", "b"], "value": value}))
    assert [event.value for event in log.events] == right


def test_urls_are_known_by_their_scheme():
    assert databases.SCHEMES == ("sqlite", "duckdb", "postgresql", "postgres")
    with pytest.raises(DataError, match=r"of a kind that can't be read"):
        read("mysql://me@host/shop#events")
