"""``make evidence``: one commit, what is measured stays measured, and nothing is measured of files that differ."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as evidence
from benchmarks import parts
from benchmarks.setup import AbsentError
from m6rec.errors import ConfigError


def git(*words):
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", *who, *words], check=True, capture_output=True)


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """(a suite of two parts in a repository of its own, what was measured)."""
    monkeypatch.chdir(tmp_path)
    git("init")
    Path("code.py").write_text("1")
    git("add", "-A")
    git("commit", "-m", "a")
    asked = []

    def measured(name):
        return lambda setup: asked.append(name) or ({"of": name}, [("value", 1.0, ">=", 0.0)])

    return SimpleNamespace(TITLE="A suite", PARTS={name: measured(name) for name in "ab"}), asked


def commits():
    found = json.loads(Path("benchmarks/results/one.json").read_text())["parts"]
    return {name: part["commit"] for name, part in found.items()}


def test_what_is_measured_at_this_commit_is_not_measured_again(suite):
    suite, asked = suite
    assert evidence.measure_all({"one": suite}, quick=False) == []
    first = commits()
    assert first == dict.fromkeys("ab", parts.code_commit())
    git("add", "-A")  # results and documents change nothing
    git("commit", "-m", "results")
    assert evidence.measure_all({"one": suite}, quick=False) == []
    assert asked == ["a", "b"]
    Path("code.py").write_text("2")
    git("commit", "-am", "b")
    assert evidence.measure_all({"one": suite}, quick=False) == []
    assert asked == ["a", "b", "a", "b"]
    assert set(commits().values()) == {parts.code_commit()} != set(first.values())


def test_files_that_differ_are_refused_before_and_while_something_is_measured(suite):
    suite, asked = suite
    Path("new.py").write_text("1")
    with pytest.raises(ConfigError, match="files differ from their commit"):
        evidence.measure_all({"one": suite}, quick=False)
    assert asked == []
    Path("new.py").unlink()
    suite.PARTS["b"] = lambda setup: Path("code.py").write_text("2") and ({}, [])
    with pytest.raises(ConfigError, match="files changed while b was measured"):
        evidence.measure_all({"one": suite}, quick=False)
    assert set(commits()) == {"a"}


def test_what_cannot_be_measured_is_told(suite):
    suite, _ = suite

    def absent(setup):
        raise AbsentError("no set")

    suite.PARTS["b"] = absent
    assert evidence.measure_all({"one": suite}, quick=True) == ["one, b (never)"]
    assert Path("runs/bench/one.json").exists()
    assert not Path("benchmarks/results").exists()


def test_every_suite_has_a_title_and_parts():
    for module in evidence.SUITES.values():
        text = (Path(__file__).parents[2] / "benchmarks" / f"{module}.py").read_text()
        assert "TITLE = " in text, module
        assert "PARTS: dict[str, parts.Measure] = {" in text, module
