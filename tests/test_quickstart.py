"""From a log as people bring it to recommendations, in the commands of the README."""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import logs
from m6rec import cli
from m6rec.project import Project
from tests import tiny

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module")
def foundation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("foundation") / "tiny"
    tiny.hf_folder("llama", folder)
    return folder


@pytest.fixture
def run(tmp_path, foundation, monkeypatch):
    """Runs a command line in an empty folder with an empty cache; the tiny foundation stands in for the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("M6REC_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("M6REC_PROJECT", raising=False)

    def command(*words, code=0):
        tuned = words[0] in ("init", "tune") and "--foundation" not in words
        extra = ["--foundation", str(foundation), "--dtype", "float32"] if tuned else []
        done = CliRunner().invoke(cli.app, [*map(str, words), *extra])
        assert done.exit_code == code, f"{words}: {done.output}\n{done.exception!r}"
        return done.stdout

    return command


@pytest.mark.parametrize("kind", logs.KINDS)
def test_a_log_becomes_a_recommender(run, tmp_path, kind):
    tables = logs.KINDS[kind](tmp_path, num_events=500)
    told = json.loads(run("init", *tables, "--project", "shop", "--json"))
    assert told["not tuned"] == {}
    first = told["first"]  # before anything was tuned
    assert 0 < len(first["found"]) <= 10
    assert len(set(first["found"])) == len(first["found"])
    assert first["liked"]
    assert any(title.startswith("Retrieval") for title in told["tables"])
    assert len(told["tables"]) >= 2
    home = Project.open(Path("shop"))
    assert home.ranking().name.startswith(("like", "click"))
    assert (home.report / "report.html").is_file()
    user = next(iter(told["data"]["prompts"])) and first_user(tables)
    found = json.loads(run("recommend", "--project", "shop", "--user", user, "--dtype", "float32", "--json"))
    assert len(found["items"]) == 10
    assert all(one["title"] for one in found["items"])
    if kind == "stars":
        again = json.loads(run("init", *tables, "--project", "shop", "--json"))
        assert again["tables"] == told["tables"]


def first_user(tables):
    return Path(tables[0]).read_text(encoding="utf-8").splitlines()[1].split(",")[0]


def test_a_project_is_not_made_of_two_logs(run, tmp_path):
    tables = logs.implicit(tmp_path, num_events=400)
    run("init", *tables, "--project", "shop", "--json")
    longer = logs.stars(tmp_path, num_events=450)
    from m6rec.errors import ConfigError

    with pytest.raises(ConfigError, match="shop"):
        CliRunner().invoke(cli.app, ["init", *longer, "--project", "shop"], catch_exceptions=False)


def test_what_the_readme_says_of_ones_own_log_works(run, tmp_path):
    section = README.read_text(encoding="utf-8").split("## Your own log")[1].split("\n## ")[0]
    lines = [
        line.partition("#")[0].strip()
        for block in re.findall(r"```\n(.*?)```", section, re.S)
        for line in block.splitlines()
    ]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("m6rec ")]
    assert {words[0] for words in commands} >= {"init", "recommend", "prepare", "tune", "evaluate", "serve"}
    (path,) = logs.stars(tmp_path, num_events=500)
    Path(path).rename("events.csv")
    for words in commands:
        if words[0] == "serve":
            assert Project.find(Path(words[words.index("--project") + 1])).ranking()
        else:
            run(*words)
