"""What a package brings from outside is found by its name, in every kind of hook."""

import importlib
import sys

import numpy as np
import pytest

from m6rec import hooks
from m6rec.domains import domain as domains
from m6rec.errors import ConfigError
from m6rec.foundation.stores import store_at
from m6rec.retrieval import blend
from m6rec.serving.journal import open_journal

PACKAGE = '''
"""A shop of tea that brings its own of everything."""
from dataclasses import replace

import numpy as np

from m6rec.domains.generic import DOMAIN

TEA = replace(DOMAIN, name="tea", noun="tea")


class Recent:
    weight = 0.5

    def fit(self, likes):
        recent_I = np.zeros(likes.num_items, np.float32)
        for rows in likes.sequences:
            recent_I[rows[-1:]] += 1
        return {"recent_I": recent_I}

    def scores(self, arrays, rows_N):
        return arrays["recent_I"] * (len(rows_N) > 0)


RECENT = Recent()


class Shelf(dict):
    """A store in memory."""

    def __init__(self, url):
        self.url = url

    def get(self, keys):
        return [super(Shelf, self).get(key) for key in keys]

    def put(self, values):
        self.update(values)

    def delete(self, keys):
        for key in keys:
            self.pop(key, None)

    def close(self):
        pass


class Ledger:
    def __init__(self, url):
        self.url, self.events = url, []
'''
ENTRY_POINTS = """
[m6rec.domains]
tea = tea_shop:TEA
broken = tea_shop:NOWHERE
[m6rec.sources]
recent = tea_shop:RECENT
[m6rec.state_stores]
shelf = tea_shop:Shelf
[m6rec.journals]
ledger = tea_shop:Ledger
"""


@pytest.fixture
def tea_shop(tmp_path, monkeypatch):
    """The package, installed in a folder of its own for the time of a test."""
    (tmp_path / "tea_shop.py").write_text(PACKAGE)
    made = tmp_path / "tea_shop-1.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: tea-shop\nVersion: 1.0\n")
    (made / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("tea_shop")
    del sys.modules["tea_shop"]
    for hook in (hooks.DOMAINS, hooks.SOURCES, hooks.STATE_STORES, hooks.JOURNALS):
        for name in ("tea", "recent", "shelf", "ledger"):
            hook._imported.pop(name, None)


def test_a_domain_of_a_package(tea_shop):
    assert "tea" in domains.names()
    assert domains.named("tea") is tea_shop.TEA is domains.named("tea_shop:TEA")


def test_a_source_of_a_package_is_fitted_and_saved(tea_shop, tmp_path):
    rng = np.random.default_rng(0)
    events = [(f"u{u}", f"i{i}", True) for u in range(50) for i in rng.permutation(9)[:4]]
    fitted = blend.fit(events)
    assert list(fitted.arrays)[-1] == "recent"
    fitted.save(tmp_path / "run")
    np.testing.assert_array_equal(blend.load(tmp_path / "run").scores(["i1"]), fitted.scores(["i1"]))


def test_a_store_and_a_journal_of_a_package_by_the_scheme_of_a_url(tea_shop):
    store = store_at("shelf://top")
    store.put({b"a": b"1"})
    assert (store.url, store.get([b"a", b"b"])) == ("shelf://top", [b"1", None])
    assert open_journal("ledger://north").url == "ledger://north"


def test_what_is_not_there_or_broken_is_told(tea_shop):
    with pytest.raises(
        ConfigError, match=r"no domain 'ta'\. Did you mean 'tea'\? Known are movielens.*package.module:N"
    ):
        domains.named("ta")
    with pytest.raises(ConfigError, match=r"domain 'broken' can't be imported \(.*NOWHERE"):
        domains.named("broken")
    with pytest.raises(ConfigError, match=r"no journal 'ftp'\. Known are redis, rediss, unix, ledger"):
        open_journal("ftp://here")


def test_a_registered_value_takes_the_place_of_another(monkeypatch):
    few = hooks.SOURCES.find("ials").__class__(num_factors=2)
    monkeypatch.setitem(hooks.SOURCES.registered, "ials", few)
    fitted = blend.fit([(f"u{u}", f"i{(u + n) % 7}", True) for u in range(20) for n in range(3)])
    assert fitted.arrays["ials"]["factor_IF"].shape == (7, 2)


@pytest.mark.parametrize("hook", [hooks.DOMAINS, hooks.SOURCES, hooks.STATE_STORES, hooks.JOURNALS])
def test_what_comes_with_m6rec_can_be_imported(hook):
    assert hook.all().keys() == set(hook.names())
