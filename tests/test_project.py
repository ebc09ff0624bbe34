import json
import os
from pathlib import Path

import pytest

from m6rec import project as module
from m6rec.errors import ConfigError
from m6rec.project import FILE, Project, require_readout


def add(project, name, task, age=0):
    """A finished run of so many seconds ago."""
    folder = project.run(name)
    folder.mkdir(parents=True)
    config = folder / "config.json"
    config.write_text(json.dumps({"task": task}))
    os.utime(config, (10_000 - age, 10_000 - age))
    return folder


@pytest.fixture
def project(tmp_path):
    return Project.create(tmp_path / "shop")


def test_a_project_has_its_places(project, tmp_path):
    shop = tmp_path / "shop"
    assert (project.folder, project.data, project.store, project.report) == (
        shop,
        shop / "data",
        shop / "store",
        shop / "report",
    )
    assert project.run("like-0") == shop / "runs" / "like-0"
    assert [file.name for file in shop.iterdir()] == [FILE]
    assert project.runs() == []
    assert project.writers() == {}


def test_making_a_project_again_keeps_it(project):
    project.serve(ranking="like-0")
    Project.create(project.folder)
    assert json.loads((project.folder / FILE).read_text()) == {"ranking": "like-0"}


def test_a_project_is_found(project, tmp_path, monkeypatch):
    other = Project.create(tmp_path / "other")
    monkeypatch.delenv("M6REC_PROJECT", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no project is given, .* --project FOLDER .*m6rec init .*m6rec prepare"):
        Project.find()
    monkeypatch.chdir(project.folder)
    assert Project.find().folder.resolve() == project.folder
    monkeypatch.setenv("M6REC_PROJECT", str(other.folder))
    assert Project.find().folder == other.folder
    assert Project.find(project.folder).folder == project.folder
    monkeypatch.setenv("M6REC_PROJECT", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=r"absent is no project: .* make one with `m6rec init events.csv`"):
        Project.find()


def test_a_folder_with_a_prepared_dataset_is_a_project(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(ConfigError, match=r"neither project.json nor a prepared data/"):
        Project.open(tmp_path)
    (tmp_path / "data" / "manifest.json").write_text("{}")
    assert Project.open(tmp_path).data == tmp_path / "data"


def test_runs_are_known_by_what_their_configuration_says(project):
    ranking = add(project, "mine", "like", age=3)
    retrieval = add(project, "yours", "retrieve", age=1)
    texts = add(project, "theirs", "explain", age=2)
    (project.run("unfinished")).mkdir()
    (project.run("unfinished") / "checkpoint.safetensors").write_bytes(b"")
    assert (project.ranking(), project.retrieval(), project.writers()) == (ranking, retrieval, {"explain": texts})
    assert [run.folder.name for run in project.runs()] == ["yours", "theirs", "mine"]


def test_the_newest_run_is_served_or_the_one_that_is_named(project):
    old, new = add(project, "old", "like", age=9), add(project, "new", "click", age=1)
    add(project, "first", "explain", age=9)
    last = add(project, "last", "explain", age=1)
    assert project.ranking() == new
    assert project.writers() == {"explain": last}
    project.serve(ranking="old")
    assert project.ranking() == old
    project.serve()
    assert project.ranking() == new


def test_what_is_not_there_is_said(project):
    with pytest.raises(ConfigError, match=r"no finished ranking run; tune one: m6rec tune like --project .*shop"):
        project.ranking()
    add(project, "like-0", "like")
    with pytest.raises(ConfigError, match=r"no finished retrieval run; tune one: m6rec tune retrieve --project"):
        project.retrieval()
    project.serve(ranking="gone", retrieval="like-0")
    with pytest.raises(ConfigError, match=r"project.json names as ranking: .*gone is no finished run"):
        project.ranking()
    with pytest.raises(ConfigError, match=r"names as retrieval: .*like-0 is a ranking run, of task 'like'; give a ret"):
        project.retrieval()


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_damaged_note_is_said(project, text):
    add(project, "like-0", "like")
    (project.folder / FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"project.json can't be read .* it is an object such as"):
        project.ranking()


@pytest.mark.parametrize(
    ("task", "wanted", "message"),
    [
        ("retrieve", "score", "--rank RUN is a retrieval run, of task 'retrieve'; give a ranking run, such as one of"),
        ("like", "embed", "--rank RUN is a ranking run, of task 'like'; give a retrieval run, such as one of"),
        ("explain", "score", "--rank RUN is a text run, of task 'explain'; give a ranking run"),
    ],
)
def test_a_run_of_another_kind_is_refused_by_name(project, task, wanted, message):
    folder = add(project, "run", task)
    with pytest.raises(ConfigError, match=message.replace("RUN", str(folder))):
        require_readout(folder, wanted, "--rank")


def test_a_task_that_is_gone_is_said(project):
    add(project, "run", "no.such.module:TASK")
    with pytest.raises(ConfigError, match="can't be imported"):
        project.ranking()


def test_no_torch_is_needed():
    assert "torch" not in Path(module.__file__).read_text()
