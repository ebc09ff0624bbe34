import dataclasses
import json
import os
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest

from m6rec.errors import AssetError, ConfigError
from m6rec.fingerprint import FILE, Fingerprint, begin, changed, digest, of_dataset
from m6rec.types import Segment

WHOLE = Fingerprint(**{field.name: f"some {field.name}" for field in fields(Fingerprint)})


@pytest.mark.parametrize("part", [field.name for field in fields(Fingerprint)])
@pytest.mark.parametrize("value", ["other", ""])
def test_resume_refuses_what_differs(tmp_path, part, value):
    begin(tmp_path / "run", WHOLE, results=("weights",))
    begin(tmp_path / "run", WHOLE, results=("weights",))
    with pytest.raises(ConfigError) as refused:
        begin(tmp_path / "run", replace(WHOLE, **{part: value}), results=("weights",))
    said = str(refused.value)
    assert f"is of another {part} (there some {part}, here {value or 'unknown'}); go on with what" in said
    assert said.count("another") == 2  # this part, and another folder


def test_all_that_differs_is_named():
    other = replace(WHOLE, data="d", task="t")
    with pytest.raises(
        ConfigError, match=r"^it is of another data \(there some data, here d\), another task \(.*; no$"
    ):
        WHOLE.require(other, what="it", remedy="no")


def test_parts_that_one_side_does_not_know_can_be_left_out():
    WHOLE.require(Fingerprint(), what="it", remedy="no", parts=("data", "task"))
    WHOLE.require(replace(WHOLE, split="other"), what="it", remedy="no", parts=("data", "task"))
    with pytest.raises(ConfigError, match="another split"):
        WHOLE.require(replace(WHOLE, split="other"), what="it", remedy="no", parts=("data", "split"))


def test_results_without_a_fingerprint_are_not_gone_on_with(tmp_path):
    (tmp_path / "weights").write_text("")
    with pytest.raises(ConfigError, match=rf"a run of an earlier m6rec, without {FILE}; give another folder"):
        begin(tmp_path, WHOLE, results=("weights",))
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"data": 1, "colour": "red"}'])
def test_a_damaged_fingerprint_is_said(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(AssetError, match=r"fingerprint\.json can't be read"):
        Fingerprint.load(tmp_path)


def test_a_fingerprint_is_written_whole(tmp_path, monkeypatch):
    WHOLE.save(tmp_path)
    monkeypatch.setattr(os, "replace", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        replace(WHOLE, data="other").save(tmp_path)
    assert Fingerprint.load(tmp_path) == WHOLE
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


DIFFERENT = [
    "",
    "a",
    b"a",
    1,
    1.0,
    True,
    None,
    [],
    ["a"],
    [["a"]],
    ["ab"],
    ["a", "b"],
    [[], []],
    {"a": "b"},
    np.zeros(2),
    np.zeros(2, np.float32),
    np.zeros((1, 2)),
    np.zeros(1),
    Segment("a", "user"),
    Segment("a", "history"),
]


def test_digests_of_different_values_differ():
    assert len({digest(value) for value in DIFFERENT}) == len(DIFFERENT)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    with pytest.raises(TypeError, match="a set has no digest"):
        digest({1})


def test_a_field_at_its_default_is_not_told():
    @dataclass(frozen=True)
    class Inner:
        depth: int
        angle: float = 1.0

    @dataclass(frozen=True)
    class Config:
        inner: Inner
        epochs: int = 3

    first = changed(Config(Inner(2)))
    assert json.loads(first) == {"inner": {"depth": 2}}
    grown = dataclasses.make_dataclass("Config", [("inner", Inner), ("epochs", int, 3), ("later", str, "")])
    assert changed(grown(Inner(2))) == first
    assert changed(Config(Inner(2), 4)) != first != changed(Config(Inner(2, 2.0)))


def test_a_dataset_is_its_tables(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "events.parquet").write_bytes(b"events")
        (tmp_path / name / "items.parquet").write_bytes(b"items")
    (tmp_path / "two" / "card.json").write_text(name)
    assert of_dataset(tmp_path / "one") == of_dataset(tmp_path / "two")
    (tmp_path / "two" / "items.parquet").write_bytes(b"itemz")
    assert of_dataset(tmp_path / "one") != of_dataset(tmp_path / "two")
    with pytest.raises(AssetError, match="holds no prepared dataset; make one with `m6rec prepare"):
        of_dataset(tmp_path)
