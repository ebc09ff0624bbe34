import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from m6rec import device
from m6rec.data.log import Log
from m6rec.data.split import TRAIN, VALID
from m6rec.device import Device
from m6rec.edge import export, shrink
from m6rec.edge.recipe import Recipe
from m6rec.errors import ConfigError
from m6rec.foundation import checkpoint
from m6rec.foundation.states import StateCache
from m6rec.readouts import ScoreModel, read_config
from tests import pocket

LOG = Log(tuple(pocket.LOG), pocket.ITEMS, pocket.USERS)
SHAPE: dict[str, Any] = {
    "width": 16,
    "ffn_width": 32,
    "num_heads": 2,
    "num_layers": 3,
    "embed_width": 8,
    "vocab_size": 280,
}
SMALL = Recipe(**SHAPE, epochs=2, tuning_epochs=1, held_out=0.25)

LONG = replace(SMALL, epochs=60)
ROOT = Path(__file__).parents[2]


def rows():
    """Some questions to learn from, the rest to judge by."""
    every = pocket.rows()
    keep = [np.arange(len(row.labels)) < len(row.labels) - 2 for row in every]
    return {
        TRAIN: [row.only(kept) for row, kept in zip(every, keep, strict=True)],
        VALID: [row.only(~kept) for row, kept in zip(every, keep, strict=True)],
    }


def shrunk(folder, recipe=SMALL, **options):
    card = shrink.shrink(pocket.tuned(**options), LOG, rows(), recipe, folder)
    return load(folder), card


def load(folder):
    run = folder / shrink.RUN
    return ScoreModel.load(run, checkpoint.load(read_config(run).foundation, dtype="float32"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "student"
    return (*shrunk(folder), folder)


def test_a_small_model_is_used_like_any_other(made):
    small, card, folder = made
    assert sorted(file.name for file in folder.iterdir()) == [
        "card.json", "distilling", "foundation", "recipe.json", "run", "tuning"
    ]  # fmt: skip
    scores = small.scores(pocket.rows())
    assert np.ptp(scores) > 0.01
    model = small.foundation.model
    assert card["parameters"]["all"] == model.num_parameters() + sum(p.numel() for p in small.adapter.parameters())
    assert card["parameters that are not zero"] <= card["parameters"]["all"]
    assert json.loads((folder / "card.json").read_text()) == card
    assert len(model.reader.layers) == 1
    assert model.config.reader.num_layers == 3


def test_it_is_not_made_twice(made):
    _, card, folder = made
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert shrink.shrink(pocket.tuned(), LOG, rows(), SMALL, folder) == card
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == {
        **before, folder / "recipe.json": (folder / "recipe.json").stat().st_mtime_ns
    }  # fmt: skip
    with pytest.raises(ConfigError, match="another recipe"):
        shrink.shrink(pocket.tuned(), LOG, rows(), replace(SMALL, seed=1), folder)


def test_cached_equals_uncached_and_one_equals_many(made):
    small, _, _ = made
    row = pocket.rows()[1]
    together = small.scores(pocket.rows())
    fresh = ScoreModel(small.config, small.foundation, small.adapter, StateCache(small.foundation, small.cache.config))
    start = len(pocket.rows()[0].labels)
    np.testing.assert_allclose(fresh.scores([row]), together[start : start + len(row.labels)], atol=1e-5)


def test_it_learns_to_read_as_the_teacher(tmp_path):
    recipe = replace(SMALL, epochs=60, learning_rate=1e-2, tuning_epochs=0, exits=False, relation=0.0)
    _, card = shrunk(tmp_path / "student", recipe)
    learned = card["quality"]["texts learned"]
    assert learned["cosine"] > 0.8
    assert learned["error"] < 0.5


@pytest.mark.parametrize(
    "switches",
    [
        {"num_blocks": 2, "sparsity": 0.5},
        {"embed_width": 0, "vocab_size": 0, "hidden": 0.0, "relation": 0.0},
        {"upper_neurons": 0.5, "upper_heads": 0.5, "alone": True, "labels": 0.0},
        {"exits": False, "relation": 0.0, "logits": 0.0},
    ],
    ids=str,
)
def test_each_switch_makes_a_model_that_a_device_runs(tmp_path, switches):
    small, card = shrunk(tmp_path / "student", replace(SMALL, epochs=1, **switches))
    export.export(small, tmp_path / "phone")
    here = Device.load(tmp_path / "phone")
    expected = small.scores(pocket.rows())
    np.testing.assert_allclose(np.concatenate([here.scores(row) for row in pocket.rows()]), expected, atol=1e-5)
    if "sparsity" in switches:
        for block in (small.foundation.model.reader.layers[0], small.foundation.model.layers[0]):
            assert float((block.down_proj.weight == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
        assert card["parameters that are not zero"] < 0.9 * card["parameters"]["all"]
    if "upper_heads" in switches:
        config = small.foundation.model.config
        assert (config.num_heads, config.num_kv_heads, config.ffn_width) == (2, 1, 32)
    if "vocab_size" in switches:
        assert small.foundation.tokenizer.vocab_size == pocket.tuned().foundation.tokenizer.vocab_size


def test_an_exit_after_each_layer(made, tmp_path):
    small, card, _ = made
    text = "The movie."
    states = {}
    for layers in (1, 2, 3):
        left = shrink.at_exit(small, layers)
        states[layers] = left.cache.fetch([text]).tokens_TD
        reader = small.foundation.model.reader
        ids = torch.tensor(small.foundation.tokenizer.encode([text]))
        expected = small.foundation.model.widen(reader.finish(reader.lower(ids, layers)))[0, -1:]
        torch.testing.assert_close(states[layers], expected)
    assert not torch.allclose(states[1], states[3])
    assert len(card["operations"]["to read a text, by layers"]) == 3
    export.export(shrink.at_exit(small, 1), tmp_path / "watch")
    export.export(small, tmp_path / "phone")
    weights = {folder: (tmp_path / folder / device.LOWER).stat().st_size for folder in ("watch", "phone")}
    shared = sum(p.numel() for p in small.foundation.model.reader.layers.parameters())
    assert weights["phone"] - weights["watch"] < 4 * shared * 2  # weights that are shared are stored once
    stored = onnx.load(tmp_path / "phone" / device.LOWER).graph.initializer
    assert sum(np.prod(one.dims) for one in stored if len(one.dims) == 2) < 1.5 * sum(
        p.numel() for p in [*small.foundation.model.reader.parameters(), small.foundation.model.widen.weight]
    )
    with pytest.raises(ConfigError, match="student of 3 layers"):
        shrink.at_exit(small, 4)
    with pytest.raises(ConfigError, match="the foundation is not a distilled one"):
        shrink.at_exit(pocket.tuned(), 1)


def test_a_shorter_student_leaves_the_upper_half_as_early(made):
    small, _, _ = made
    early = ScoreModel(small.config, small.foundation, small.adapter, small.cache, exit_after=1)
    left = shrink.at_exit(early, 1)
    assert left.end == early.end < small.end
    assert np.abs(left.scores(pocket.rows()) - shrink.at_exit(small, 1).scores(pocket.rows())).max() > 0


def test_texts_of_items_held_out_are_not_learned():
    teacher = pocket.tuned()
    learned, held_out = shrink.texts_of(teacher.task, teacher.domain, LOG, SMALL)
    assert len(held_out) == 2 * 6  # two of eight items, five wordings and the question
    assert not set(learned) & set(held_out)
    assert len({text for text in learned if text.endswith("Does the user like it?")}) == 6


TEACHERS: dict[str, Any] = {
    "everything": ({"depth": 0}, {}, "leaves nothing to shrink"),
    "lora": ({"method": "lora"}, {}, "tunes weights that shrinking changes"),
    "tokens": ({"keep": 2}, {"hidden": 0.0, "relation": 0.0}, "keep=1"),
    "heads": ({}, {"width": 18, "num_heads": 3}, "can't be parted into num_heads 3"),
}


@pytest.mark.parametrize("kind", TEACHERS)
def test_teachers_that_cannot_be_shrunk(kind, tmp_path):
    options, switches, message = TEACHERS[kind]
    with pytest.raises(ConfigError, match=message):
        shrunk(tmp_path / "student", replace(SMALL, **switches), **options)


def test_a_small_model_writes_nothing(made):
    small, _, _ = made
    with pytest.raises(ConfigError, match="only reads"):
        small.foundation.model(torch.tensor([[5, 6]]))


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path):
    script = (
        "import sys; from pathlib import Path; from tests.edge import test_shrink; "
        "test_shrink.shrunk(Path(sys.argv[1]), test_shrink.LONG)"
    )
    folder = tmp_path / "killed"
    going = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}
    )
    while not (folder / "distilling" / "checkpoint.safetensors").exists():
        assert going.poll() is None
        time.sleep(0.01)
    going.send_signal(signal.SIGKILL)
    going.wait()
    assert not (folder / shrink.FOUNDATION).exists()
    killed, _ = shrunk(folder, LONG)
    whole, _ = shrunk(tmp_path / "whole", LONG)
    assert killed.foundation.model.id == whole.foundation.model.id
    assert killed.adapter.digest() == whole.adapter.digest()
