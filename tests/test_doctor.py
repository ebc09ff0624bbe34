"""`m6rec doctor`: what is wrong is found, named and has a remedy."""

import json
import shutil
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from m6rec import assets, cli, doctor
from m6rec.doctor import Patient, examine
from tests import redis_server, tiny


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("M6REC_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("M6REC_PROJECT", raising=False)
    monkeypatch.chdir(tmp_path)
    tiny.hf_folder("llama", tmp_path / "foundation")
    return tmp_path


def of(patient):
    return {one.name: one for one in examine(patient)}


def test_a_machine_like_this_can_serve(home):
    found = of(Patient(foundation=str(home / "foundation")))
    assert [one for one in found.values() if one.status == "failure"] == []
    assert {"python", "base install", "extra serve", "processor", "memory", "cache", "parity", "search"} <= found.keys()
    assert "finite" not in found[f"foundation {home / 'foundation'}"].told
    assert all(one.remedy for one in found.values() if one.status != "ok")
    assert not (home / "home").exists()  # nothing is fetched or made


def test_the_exit_code_says_whether_a_service_could_run(home):
    def said(*words):
        done = CliRunner().invoke(cli.app, ["doctor", *words, "--json"])
        return done.exit_code, json.loads(done.stdout)

    code, told = said("--foundation", str(home / "foundation"))
    assert (code, told["can_serve"]) == (0, True)
    code, told = said()  # the default is not fetched here
    assert (code, told["can_serve"]) == (1, False)
    (bad,) = (one for one in told["findings"] if one["status"] == "failure")
    assert bad["name"] == f"foundation {assets.DEFAULT_FOUNDATION}"
    assert bad["remedy"].startswith(f"m6rec assets get {assets.DEFAULT_FOUNDATION}")


@pytest.mark.parametrize(
    ("lacking", "extra", "status"),
    [("lightgbm", "baselines", "warning"), ("fastapi", "serve", "failure"), ("lmdb", "tune", "failure")],
)
def test_a_missing_extra_is_told_with_its_install_line(home, monkeypatch, lacking, extra, status):
    version = metadata.version

    def without(name):
        if name == lacking:
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", without)
    one = of(Patient(foundation=str(home / "foundation")))[f"extra {extra}"]
    assert (one.status, one.told) == (status, f"{lacking} is not installed")
    assert f"pip install 'm6rec[{extra}]'" in one.remedy


def test_a_package_that_is_too_old_is_told(home, monkeypatch):
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.1" if name == "redis" else version(name))
    assert "redis 0.1 is not >=6.0" in of(Patient(foundation=str(home / "foundation")))["extra serve"].told


def test_wrong_arithmetic_is_noticed(home, monkeypatch):
    monkeypatch.setattr(torch, "rsqrt", lambda x: x**-0.5 * 1.001)
    one = of(Patient(foundation=str(home / "foundation")))["parity"]
    assert one.status == "failure"
    assert "pip install --force-reinstall" in one.remedy


def test_a_damaged_foundation_is_noticed(home):
    weights = home / "foundation" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    one = of(Patient(foundation=str(home / "foundation")))["foundation"]
    assert one.status == "failure"
    assert "damaged" in one.told
    assert one.remedy


def test_a_damaged_asset_is_noticed(home):
    folder = home / "home" / "movielens-100k"
    folder.mkdir(parents=True)
    (folder / "card.json").write_text("{}")
    one = of(Patient(foundation=str(home / "foundation")))["asset movielens-100k"]
    assert (one.status, one.remedy) == ("failure", f"delete {folder}, then: m6rec assets get movielens-100k")


def test_little_memory_and_a_full_disk_are_warned_of(home, monkeypatch):
    monkeypatch.setattr(doctor, "_free_memory", lambda: (1 << 30, "1.0 GiB free"))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1 << 20))
    found = of(Patient(foundation=str(home / "foundation")))
    assert (found["memory"].status, found["cache"].status) == ("warning", "warning")
    assert "free 2 GiB there" in found["cache"].remedy


def test_a_folder_that_can_not_be_written_is_a_failure(home, monkeypatch):
    (home / "file").write_text("")
    monkeypatch.setenv("M6REC_HOME", str(home / "file"))
    one = of(Patient(foundation=str(home / "foundation")))["cache"]
    assert (one.status, one.remedy) == ("failure", "set M6REC_HOME to a folder of yours")


def test_a_project_that_is_not_whole_is_a_failure(home):
    one = of(Patient(foundation=str(home / "foundation"), project=home / "nowhere"))["project"]
    assert one.status == "failure"
    assert "m6rec init" in one.remedy


def test_a_server_is_asked_whether_it_keeps_events(home):
    patient = Patient(foundation=str(home / "foundation"), servers={"redis": "redis://127.0.0.1:1/0"})
    one = of(patient)["redis"]
    assert (one.status, "doesn't serve" in one.told) == ("failure", True)
    for durable, status in ((False, "warning"), (True, "ok")):
        server = redis_server.Server(home / f"redis-{durable}", durable=durable).start()
        try:
            one = of(Patient(foundation=str(home / "foundation"), servers={"redis": server.url}))["redis"]
        finally:
            server.stop()
        assert (one.status, "may lose events" in one.told) == (status, not durable)


def test_what_is_set_is_what_is_looked_at(home):
    """By the project's file, --config and --set, as for `m6rec serve`."""
    nobody = ("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/1")
    (home / "a.toml").write_text(f'[foundation]\nname = "{home / "foundation"}"\n[states]\nstore = "{nobody[0]}"\n')
    words = ["--config", str(home / "a.toml"), "--set", f"serving.journal={nobody[1]}", "--json"]
    done = CliRunner().invoke(cli.app, ["doctor", *words])
    told = {one["name"]: one["status"] for one in json.loads(done.stdout)["findings"]}
    assert told[f"foundation {home / 'foundation'}"] == "ok"
    assert {name for name, status in told.items() if status == "failure"} == {"states.store", "serving.journal"}
