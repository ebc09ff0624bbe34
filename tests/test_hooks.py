"""What a package brings from outside: one of each kind is found by its name, tuned and served."""

import importlib
import os
import sys

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from m6rec import cli, hooks
from m6rec.adapters import methods
from m6rec.domains import domain as domains
from m6rec.errors import ConfigError
from m6rec.foundation.stores import store_at
from m6rec.retrieval import blend
from m6rec.serving.journal import FileJournal, open_journal
from m6rec.tasks import task as tasks
from tests import running, shop, tiny

HOOKS = (hooks.DOMAINS, hooks.TASKS, hooks.METHODS, hooks.SOURCES, hooks.STATE_STORES, hooks.JOURNALS)
PACKAGE = '''
"""A shop of tea that brings its own of everything."""
from dataclasses import replace
from pathlib import Path

import numpy as np

from m6rec.domains.generic import DOMAIN
from m6rec.tasks.click import TASK

TEA = replace(DOMAIN, name="tea", noun="tea")
TASTE = replace(TASK, name="taste", options=("bitter", "sweet"))


def __getattr__(name):  # what needs torch or the service, once it is asked for
    if name == "HALF":
        from m6rec.adapters.lora import LoRA
        from m6rec.adapters.methods import Method

        return Method(module=lambda config, model, generator: LoRA(model, config.first_layer, 2, 2.0, generator))
    if name == "ledger":
        from m6rec.serving.journal import FileJournal

        return lambda url: FileJournal(Path(url.removeprefix("ledger://")))
    raise AttributeError(name)


class Recent:
    weight = 0.5

    def fit(self, likes):
        recent_I = np.zeros(likes.num_items, np.float32)
        for rows in likes.sequences:
            recent_I[rows[-1:]] += 1
        return {"recent_I": recent_I}

    def scores(self, arrays, likes):
        return np.stack([arrays["recent_I"] * (len(rows) > 0) for rows in likes])


RECENT = Recent()


class Shelf:
    """A store in memory."""

    def __init__(self, url):
        self.url, self.values = url, {}

    def get(self, keys):
        return [self.values.get(key) for key in keys]

    def put(self, values):
        self.values.update(values)

    def delete(self, keys):
        for key in keys:
            self.values.pop(key, None)

    def close(self):
        pass
'''
ENTRY_POINTS = """
[m6rec.domains]
tea = tea_shop:TEA
broken = tea_shop:NOWHERE
[m6rec.tasks]
taste = tea_shop:TASTE
[m6rec.methods]
half = tea_shop:HALF
[m6rec.sources]
recent = tea_shop:RECENT
[m6rec.state_stores]
shelf = tea_shop:Shelf
[m6rec.journals]
ledger = tea_shop:ledger
"""


@pytest.fixture
def tea_shop(tmp_path, monkeypatch):
    """The package, installed in a folder of its own for the time of a test."""
    installed = tmp_path / "installed"
    made = installed / "tea_shop-1.0.dist-info"
    made.mkdir(parents=True)
    (installed / "tea_shop.py").write_text(PACKAGE)
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: tea-shop\nVersion: 1.0\n")
    (made / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(installed))
    yield importlib.import_module("tea_shop")
    del sys.modules["tea_shop"]
    for hook in HOOKS:
        for name in ("tea", "taste", "half", "recent", "shelf", "ledger"):
            hook._paths.pop(name, None)


def test_each_is_found_by_its_name_or_path(tea_shop, tmp_path):
    assert domains.named("tea") is tea_shop.TEA is domains.named("tea_shop:TEA")
    assert tasks.named("taste") is tea_shop.TASTE is tasks.named("tea_shop:TASTE")
    assert "taste" in tasks.names("score")
    assert isinstance(methods.named("half"), methods.Method)
    store = store_at("shelf://top")
    store.put({b"a": b"1"})
    assert (vars(store)["url"], store.get([b"a", b"b"])) == ("shelf://top", [b"1", None])
    journal = open_journal(f"ledger://{tmp_path / 'ledger'}")
    assert isinstance(journal, FileJournal)
    journal.close()


def test_a_source_is_fitted_and_saved(tea_shop, tmp_path):
    rng = np.random.default_rng(0)
    fitted = blend.fit([(f"u{u}", f"i{i}", True) for u in range(50) for i in rng.permutation(9)[:4]])
    assert list(fitted.arrays)[-1] == "recent"
    fitted.save(tmp_path / "run")
    np.testing.assert_array_equal(blend.load(tmp_path / "run").scores(["i1"]), fitted.scores(["i1"]))


def test_one_of_each_is_tuned_and_served(tea_shop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("M6REC_HOME", str(tmp_path / "home"))
    tiny.hf_folder("llama", tmp_path / "foundation")
    (tmp_path / "log.csv").write_text(shop.log("Tea"))

    def m6rec(*words):
        done = CliRunner().invoke(cli.app, list(words))
        assert done.exit_code == 0, f"{done.output} {done.exception!r}"

    tuned = ("--data", "data", "--foundation", "foundation", "--epochs", "1", "--dtype", "float32")
    m6rec("prepare", "tea", "log.csv", "--out", "data")
    m6rec("tune", "taste", "--method", "half", "--depth", "1", "--run", "taste", *tuned)
    m6rec("tune", "retrieve", "--run", "retrieve", *tuned)
    assert "recent" in blend.load(tmp_path / "retrieve").arrays
    words = ["--data", "data", "--retrieve", "retrieve", "--rank", "taste", "--store", "store", "--dtype", "float32"]
    words += ["--states", "shelf://top", "--journal", f"ledger://{tmp_path / 'ledger'}", "--port", "0"]
    environment = shop.environment(tmp_path)
    environment["PYTHONPATH"] += os.pathsep + str(tmp_path / "installed")
    with running.process(shop.command("serve", *words), tmp_path, environment) as (_, url, _):
        found = httpx.post(f"{url}/v1/recommend", json={"user": "u1", "count": 5}, timeout=60).raise_for_status().json()
        assert len(found["items"]) == 5
        event = {"user": "u1", "item": "i1", "time": 1_000, "value": 1}
        httpx.post(f"{url}/v1/events", json={"events": [event]}, timeout=60).raise_for_status()
    kept = FileJournal(tmp_path / "ledger")
    assert [(one.user, one.item) for one in kept.replay()] == [("u1", "i1")]
    kept.close()


def test_what_is_not_there_or_broken_is_told(tea_shop):
    with pytest.raises(
        ConfigError, match=r"no domain 'ta'\. Did you mean 'tea'\? Known are movielens.*package.module:N"
    ):
        domains.named("ta")
    with pytest.raises(ConfigError, match=r"domain 'broken' can't be imported \(.*NOWHERE"):
        domains.named("broken")
    with pytest.raises(ConfigError, match=r"no journal 'ftp'\. Known are redis, rediss, unix, ledger"):
        open_journal("ftp://here")
    with pytest.raises(ConfigError, match=r"'tea_shop:TEA' is a Domain, not a task"):
        tasks.named("tea_shop:TEA")
    with pytest.raises(ConfigError, match=r"'tea_shop:TEA' is a Domain, not a tuning method"):
        methods.named("tea_shop:TEA")


def test_a_registered_value_takes_the_place_of_another(monkeypatch):
    few = type(hooks.SOURCES.find("ials"))(num_factors=2)
    monkeypatch.setitem(hooks.SOURCES.registered, "ials", few)
    fitted = blend.fit([(f"u{u}", f"i{(u + n) % 7}", True) for u in range(20) for n in range(3)])
    assert fitted.arrays["ials"]["factor_IF"].shape == (7, 2)


@pytest.mark.parametrize("hook", HOOKS)
def test_what_comes_with_m6rec_can_be_imported(hook):
    assert hook.all().keys() == set(hook.names())
