import doctest
import gzip

import polars as pl
import pytest

from m6rec.data import lines
from m6rec.data.lines import record, table
from m6rec.errors import DataError

SCHEMA = {"name": pl.String, "size": pl.Int64}


def load(path, **options):
    return table(path, SCHEMA, lambda r: (r["name"], r["size"]) if r["size"] else None, of="names and sizes", **options)


def test_worked_examples():
    failed, attempted = doctest.testmod(lines)
    assert (failed, attempted) == (0, 1)


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
@pytest.mark.parametrize("zipped", [False, True])
def test_json_and_literals_plain_or_gzipped_whatever_the_name(tmp_path, name, zipped, monkeypatch):
    monkeypatch.setattr(lines, "_BATCH", 2)  # three rows are more than one batch
    rows = ('{"name": "Zoë\\u2028", "size": 1}\r', "", "{'name': u'it\\'s', 'size': 2}", '{"name": "none", "size": 0}')
    raw = "\n".join([*rows, '{"name": "last", "size": 3}']).encode()
    (tmp_path / name).write_bytes(gzip.compress(raw) if zipped else raw)
    assert load(tmp_path / name).rows() == [("Zoë\u2028", 1), ("it's", 2), ("last", 3)]


def test_other_encodings_and_separators(tmp_path):
    (tmp_path / "a.dat").write_bytes("Crème\x85::1\nThe::2\n".encode("latin-1"))
    rows = table(tmp_path / "a.dat", SCHEMA, tuple, of="x", parse=lambda s: s.split("::"), encoding="latin-1").rows()
    assert rows == [("Crème\x85", 1), ("The", 2)]


def test_an_empty_file_is_an_empty_table(tmp_path):
    (tmp_path / "a.json").touch()
    assert load(tmp_path / "a.json").schema == SCHEMA


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no json", r"line 2 can't be read \(.*\); give names and sizes"),
        ('{"name": "x"}', "line 2 lacks 'size'; give names and sizes"),
        ('["name", 3]', "line 2 can't be read"),
        ("__import__('os').getcwd()", "line 2 can't be read"),
        ("[" * 100_000, "line 2 can't be read"),
        ("'\\d' + 1", "line 2 can't be read"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    (tmp_path / "a.json").write_text('{"name": "x", "size": 1}\n' + line)
    with pytest.raises(DataError, match=r"a\.json: " + message):
        load(tmp_path / "a.json")


def test_a_file_that_ends_early_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent can't be read \(.*\); give names and sizes"):
        load(tmp_path / "absent")
    whole = gzip.compress(b'{"name": "x", "size": 1}\n' * 1000)
    (tmp_path / "a.gz").write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"a\.gz can't be read"):
        load(tmp_path / "a.gz")
    (tmp_path / "b.json").write_bytes(b'{"name": "\xff", "size": 1}')
    with pytest.raises(DataError, match=r"b\.json: line 1 can't be read.*decode"):
        load(tmp_path / "b.json")


def test_a_million_nested_brackets_are_no_crash():
    for text in ("[" * 1_000_000, "(" * 1_000_000, "-" * 1_000_000 + "1"):
        with pytest.raises((ValueError, SyntaxError, RecursionError, MemoryError)):
            record(text)
