"""`m6rec plan`: counts that follow from a load, hit rates of a cache that is simulated, and refusals."""

import json
import math
from collections import OrderedDict
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from m6rec import cli
from m6rec.errors import ConfigError
from m6rec.scale import measuring
from m6rec.scale.measuring import MeasureConfig
from m6rec.scale.planning import (
    Assumptions,
    Load,
    Machine,
    Rates,
    Shape,
    cache_hit_rate,
    memory_bytes,
    rank_s,
    retrieval_s,
    service_plan,
)
from tests import tiny

RATES = Rates(
    read_flop_per_s=4e11,
    rank_flop_per_s=2e11,
    request_s=0.001,
    event_s=2e-5,
    retrieve_s=0.0005,
    scan_s=1e-8,
    source_s=4e-8,
    batch_s=2e-8,
    batch_user_s=4e-4,
    vector_bytes=800,
    item_bytes=600,
    user_bytes=600,
    event_bytes=500,
    journal_bytes=700,
    state_bytes=200,
)
SHAPE = Shape(
    width=576,
    ffn_width=1536,
    num_heads=9,
    num_kv_heads=3,
    head_width=64,
    num_layers=30,
    upper_layers=1,
    state_layers=20,
)
LOAD = Load(users=1e6, items=1e5, qps=100, history=50)


def test_flop_are_two_for_each_weight_that_a_token_meets():
    config = tiny.model().config
    shape = measuring.shape_of(config)
    weights = sum(w.numel() for w in tiny.model().layers[0].parameters() if w.ndim == 2)
    assert shape.flop(3) == 2 * 3 * weights
    assert shape.flop(1, 10) - shape.flop(1) == 2 * 2 * 10 * config.num_heads * config.head_width


@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.2])
@pytest.mark.parametrize("capacity", [20, 300, 1_500])
def test_hit_rates_are_those_of_a_cache_that_is_simulated(exponent, capacity):
    num, rng, cache, hits = 2_000, np.random.default_rng(0), OrderedDict(), 0
    share = np.arange(1, num + 1) ** -exponent
    asked = rng.choice(num, 60_000, p=share / share.sum()).tolist()
    for at, one in enumerate(asked):
        hits += at >= 20_000 and one in cache
        cache[one] = cache.pop(one, None)
        if len(cache) > capacity:
            cache.popitem(last=False)
    assert cache_hit_rate(num, exponent, capacity) == pytest.approx(hits / 40_000, abs=0.01)


def test_hit_rates_at_the_edges():
    assert (cache_hit_rate(100, 1.0, 100), cache_hit_rate(100, 1.0, 0)) == (1.0, 0.0)
    assert 0 < cache_hit_rate(1e9, 0.8, 1e6) < cache_hit_rate(1e9, 0.8, 1e8) < 1


def test_a_larger_load_needs_more_of_everything():
    least = service_plan(LOAD, SHAPE, RATES, Machine())
    larger: dict[str, Any] = {"users": 4e8, "items": 4e6, "qps": 4e4, "history": 2_000.0}
    for name, value in larger.items():
        more = service_plan(replace(LOAD, **{name: value}), SHAPE, RATES, Machine())
        assert more["machines"]["needed"] > least["machines"]["needed"], name
    assert service_plan(replace(LOAD, users=1e9), SHAPE, RATES, Machine())["limited by"] == "memory"
    assert (
        service_plan(replace(LOAD, items=1e6, qps=1e4), SHAPE, RATES, Machine())["limited by"] == "retrieval: sources"
    )


def test_machines_have_room_for_what_they_hold_and_time_for_what_they_are_asked():
    load = replace(LOAD, users=3e6, items=3e5, qps=20_000)
    machine = Machine(cores=16, memory_gib=64, utilisation=0.4)
    made = service_plan(load, SHAPE, RATES, machine)
    needed = made["machines"]["needed"]
    assert made["bytes in memory"]["all"] == sum(memory_bytes(load, RATES).values()) <= needed * 64 * 2**30
    assert needed * 16 * 0.4 >= load.qps * made["seconds of a core"]["a request"]
    assert (needed - 1) * 16 * 0.4 < 1.1 * load.qps * made["seconds of a core"]["a request"]


def test_seconds_are_made_of_what_was_measured():
    assert retrieval_s(1e5, RATES) == pytest.approx(0.0005 + 1e5 * 5e-8)
    known, unknown = (rank_s(50, 100, SHAPE, RATES, is_known=one) for one in (True, False))
    assert known == pytest.approx(0.001 + 50 * 2e-5 + 100 * SHAPE.flop(1, 50) / 2e11)
    assert unknown - known == pytest.approx(50 * SHAPE.flop(1, 25) / 2e11)


def test_money_and_carbon_come_from_what_is_given_alone():
    assert "cost" not in service_plan(LOAD, SHAPE, RATES, Machine())
    machine = Machine(price_per_hour=2.0, watts=100, grams_per_kwh=50)
    made = service_plan(LOAD, SHAPE, RATES, machine)
    num = made["machines"]["needed"]
    assert made["cost"] == {
        "price a year": num * 2 * 8_766,
        "kWh a year": pytest.approx(num * 876.6),
        "kg of CO₂ a year": pytest.approx(num * 43.83),
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(LOAD, users=0), "users is 0"),
        (lambda: replace(LOAD, qps=-1), "qps is -1"),
        (lambda: replace(LOAD, history=math.nan), "history is nan"),
        (lambda: Machine(cores=0), "cores is 0"),
        (lambda: Machine(utilisation=1.5), "utilisation is 1.5"),
        (lambda: Assumptions(churn=2.0), "churn is 2"),
        (lambda: service_plan(LOAD, SHAPE, RATES, Machine(grams_per_kwh=50)), "give both"),
    ],
)
def test_what_can_not_be_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_rates_are_measured_written_and_read(tmp_path):
    threads = torch.get_num_threads()
    few = MeasureConfig(items=2_000, events=20_000, history=10, candidates=30, texts=16, width=32)
    found = measuring.measure(tiny.foundation(num_layers=4), few)
    assert torch.get_num_threads() == threads
    rates = {name: value for name, value in asdict(found).items() if name.endswith("_s") or name == "journal_bytes"}
    assert min(rates.values()) >= 0  # memory grows by pages, which few items may not fill
    assert min(rates[name] for name in ("read_flop_per_s", "rank_flop_per_s", "scan_s", "source_s", "batch_user_s")) > 0
    assert found.journal_bytes > 200
    (tmp_path / "rates.json").write_text(json.dumps(asdict(found)))
    assert Rates.read(tmp_path / "rates.json") == found
    (tmp_path / "rates.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds no rates"):
        Rates.read(tmp_path / "rates.json")


def test_the_command_plans_by_our_rates(tmp_path):
    tiny.hf_folder("llama", tmp_path / "foundation")
    words = ["plan", "--users", "1e9", "--items", "1e8", "--qps", "1e5", "--history", "200", "--price", "1"]
    words += ["--foundation", str(tmp_path / "foundation")]
    done = CliRunner().invoke(cli.app, [*words, "--json"])
    made = json.loads(done.stdout)
    assert made["machines"]["needed"] == max(made["machines"].values())
    assert made["cost"]["price a year"] == made["machines"]["needed"] * 8_766
    (tmp_path / "a.toml").write_text("[plan.machine]\nprice_per_hour = 2.0\ncores = 64\n")
    given = ["--config", str(tmp_path / "a.toml"), "--set", "plan.load.churn=0"]
    told = json.loads(CliRunner().invoke(cli.app, [*words[:-4], *words[-2:], *given, "--json"]).stdout)
    assert told["cost"]["price a year"] == told["machines"]["needed"] * 2 * 8_766
    assert told["core hours"]["to read what changes in a day"] == 0
    assert told["machines"]["for requests"] < made["machines"]["for requests"]
    said = CliRunner().invoke(cli.app, words).stdout
    assert "machines:\n" in said
    assert " TiB\n" in said
