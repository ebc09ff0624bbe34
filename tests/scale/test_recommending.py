"""`m6rec recommend --all`: what the service would say to each user, whole files, and no user twice."""

import json
import os
import signal
import subprocess
from copy import copy
from pathlib import Path

import polars as pl
import pytest

from m6rec import cli
from m6rec.cli import batch
from m6rec.cli.runs import Served
from m6rec.cli.tree import Config, FoundationSection
from m6rec.domains import prepared
from m6rec.errors import ConfigError, StoreError
from m6rec.retrieval.blend import fit
from m6rec.scale.partitions import JOB, Partitions, locked
from m6rec.scale.recommending import RecommendConfig, RecommendJob, here, run
from m6rec.serving.binding import bind_store
from m6rec.serving.journal import FileJournal
from m6rec.serving.recommender import Recommender
from m6rec.types import Event, Item
from tests import shop as shops
from tests.serving.test_recommender import ITEMS, LOG, observed, tunings  # noqa: F401 - a fixture

KILLED = """
import os, signal
from m6rec.scale import partitions

replace, left = os.replace, [2]

def killing(partial, final):
    if "part-" in str(final):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    replace(partial, final)

partitions.os.replace = killing
"""


@pytest.fixture
def recommender(tunings):  # noqa: F811
    """With sources, users of no like and of nothing, a deleted item and a new one."""
    retrieve, rank = copy(tunings[0]), tunings[1]
    retrieve.blend = fit((event.user, event.item, event.value >= 4) for event in LOG.events)
    made = Recommender(retrieve, rank, LOG, observed())
    made.delete(["i9"])
    made.upsert([Item("fresh", "Storm")])
    made.ingest([Event("hater", "i3", 50, 1.0), Event("fan", "i2", 51, 5.0), Event("fan", "fresh", 52, 5.0)])
    return made


def table(folder):
    return pl.read_parquet(folder / "*.parquet")


def files(folder):
    return {file.name: file.read_bytes() for file in folder.glob("part-*")}


@pytest.mark.parametrize("stage", ["retrieve", "rank"])
def test_every_user_gets_what_the_service_would_say(recommender, tmp_path, stage):
    job = RecommendJob(recommender.state, RecommendConfig(count=4, stage=stage, users=2))
    out = Partitions(tmp_path, {}, job.num)
    summary = run(job, out, here(job, out, 1))
    found = table(tmp_path)
    assert (summary.users, summary.rows, summary.partitions, summary.kept) == (5, len(found), 3, 0)
    assert set(found["user"]) == {"u0", "u1", "u2", "hater", "fan"}
    for user in set(found["user"]):
        expected = recommender.retrieve(user, 4) if stage == "retrieve" else recommender.recommend(user, 4).items
        rows = found.filter(pl.col("user") == user)
        assert rows["position"].to_list() == [1, 2, 3, 4]
        assert rows["item"].to_list() == [one.item.id for one in expected]
        assert rows["score"].to_list() == pytest.approx([one.score for one in expected], abs=2e-6)


def test_files_are_the_same_by_any_number_of_threads_and_however_often_it_stops(recommender, tmp_path):
    job = RecommendJob(recommender.state, RecommendConfig(count=3, users=2))
    for name in ("whole", "part"):
        (tmp_path / name).mkdir()
    whole, part = (Partitions(tmp_path / name, {}, job.num) for name in ("whole", "part"))
    run(job, whole, here(job, whole, 3))
    part.commit(1, job.partition(1))
    (tmp_path / "part" / ".part-00002.parquet.7").write_text("half a file")
    told = []
    summary = run(job, part, here(job, part, 1), lambda done, total: told.append((done, total)))
    assert (summary.kept, summary.rows) == (1, 9)
    assert told == [(0, 3), (2, 3), (3, 3)]
    assert files(part.folder) == files(whole.folder)
    assert run(job, part, here(job, part, 1)).rows == 0


def test_partitions_of_something_else_are_refused(recommender, tmp_path):
    job = RecommendJob(recommender.state, RecommendConfig(users=2))
    Partitions(tmp_path, {"dataset": "a", "count": 10}, job.num)
    with pytest.raises(ConfigError, match=r"belong to another dataset \(there a, here b\); give another folder"):
        Partitions(tmp_path, {"dataset": "b", "count": 10}, job.num)
    Partitions(tmp_path, {"dataset": "a", "count": 10}, job.num)


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "part-00000.parquet").write_text("someone's")
    with pytest.raises(ConfigError, match=r"holds part-00000.parquet and no _job.json"), locked(tmp_path):
        pass
    assert (tmp_path / "part-00000.parquet").read_text() == "someone's"


def test_two_jobs_never_write_to_one_folder(tmp_path):
    with locked(tmp_path), pytest.raises(ConfigError, match="another process writes to"), locked(tmp_path):
        pass


def test_a_full_disk_leaves_what_is_there(recommender, tmp_path, monkeypatch):
    job = RecommendJob(recommender.state, RecommendConfig(users=2))
    out = Partitions(tmp_path, {}, job.num)
    out.commit(0, job.partition(0))
    before = files(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    made = job.partition(1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            out.commit(1, made)
    assert files(tmp_path) == before
    assert not [*tmp_path.glob(".part*")]
    assert run(job, out, here(job, out, 1)).kept == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stage": "guess"}, "choose one of retrieve, rank"),
        ({"count": 0}, "must be 1 to 1000"),
        ({"users": 0}, "at least 1"),
    ],
)
def test_what_can_not_be_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        RecommendConfig(**given)


def test_no_more_items_are_ranked_than_the_service_ranks(recommender):
    with pytest.raises(ConfigError, match="count is 101, but 100 items are ranked"):
        RecommendJob(recommender.state, RecommendConfig(count=101, stage="rank"))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return shops.make(tmp_path_factory.mktemp("shop"))


def where(shop):
    runs = ("--data", shop / "data", "--retrieve", shop / "retrieve", "--rank", shop / "click")
    return (*runs, "--dtype", "float32", "--json")


def test_a_killed_job_goes_on_and_writes_nothing_twice(shop, tmp_path):
    words = ("recommend", "--all", "--partition", "1", "--count", "3", *where(shop))
    killed = shops.command(*words, "--out", tmp_path / "killed", first=KILLED)
    environment = shops.environment(shop)
    assert subprocess.run(killed, env=environment, capture_output=True).returncode == -signal.SIGKILL
    there = files(tmp_path / "killed")
    assert len(there) == 2
    told = json.loads(shops.m6rec(shop, *words, "--out", tmp_path / "killed"))
    assert (told["kept"], told["rows"]) == (2, 12)
    whole = json.loads(shops.m6rec(shop, *words, "--out", tmp_path / "whole"))
    assert whole["kept"] == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    found = table(tmp_path / "killed")
    assert len(found) == len(found.unique(["user", "item"])) == 18
    one = ("recommend", "--user", "u1", "--stage", "retrieve", "--count", 3, *where(shop))
    of_one = json.loads(shops.m6rec(shop, *one))
    assert [one["id"] for one in of_one["items"]] == found.filter(pl.col("user") == "u1")["item"].to_list()


def test_a_job_goes_on_with_the_events_that_it_began_with(shop, tmp_path, monkeypatch):
    store = tmp_path / "store"
    bind_store(store, prepared.fingerprint(shop / "data"))
    journal = FileJournal(store / "histories")
    journal.append([Event("guest", "i3", 500, 1.0)])
    runs = {"data": shop / "data", "retrieve": shop / "retrieve", "rank": shop / "click"}
    chosen = Served(**runs, store=store, report=None)
    monkeypatch.setenv("M6REC_HOME", str(shop / "home"))

    def recommend(folder: Path):
        config = Config(foundation=FoundationSection(dtype="float32"))
        batch.recommend_all(chosen, folder, RecommendConfig(count=3, users=2), config, as_json=True)

    recommend(tmp_path / "before")
    kept = Partitions.commit

    def full(self, number, table):
        if number == 2:
            raise StoreError("full")
        kept(self, number, table)

    with monkeypatch.context() as patch:
        patch.setattr(Partitions, "commit", full)
        with pytest.raises(StoreError, match="full"):
            recommend(tmp_path / "stopped")
    journal.append([Event("guest", "i8", 501, 1.0), Event("u1", "i9", 502, 1.0)])
    recommend(tmp_path / "stopped")
    assert files(tmp_path / "stopped") == files(tmp_path / "before")
    assert sorted(one.name for one in (tmp_path / "stopped").iterdir() if "part" not in one.name) == [".lock", JOB]
    with pytest.raises(ConfigError, match="belong to another journal"):
        recommend(tmp_path / "stopped")
    assert "guest" in set(table(tmp_path / "before")["user"])


def test_one_user_or_all(shop, tmp_path, monkeypatch, capsys):
    for words in ([], ["--user", "u1", "--all"], ["--all"], ["--user", "u1", "--out", str(tmp_path)]):
        monkeypatch.setattr("sys.argv", ["m6rec", "recommend", *words])
        with pytest.raises(SystemExit):
            cli.main()
        assert "give --user ID for one user, or --all --out FOLDER" in " ".join(capsys.readouterr().err.split())
