import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from m6rec import device
from m6rec.device import Device
from m6rec.edge import export as module
from m6rec.errors import AssetError, ConfigError, DataError, ExtraError
from m6rec.readouts import ScoreModel
from m6rec.types import Item
from tests import pocket


def differences(made, folder, task="like"):
    """(largest difference of a device's scores from torch's, spread of torch's)."""
    here, rows = Device.load(folder), pocket.rows(task)
    expected = made.scores(rows)
    actual = np.concatenate([here.scores(row) for row in rows])
    return np.abs(actual - expected).max(), np.ptp(expected)


OPTIONS = [
    {},
    {"keep": 2},
    {"keep": 0, "depth": 0},
    {"bidirectional": True},
    {"task": "click", "method": "lora"},
    {"method": "upper", "depth": 3},
    {"method": "head"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_device_scores_as_torch_does(options):
    difference, spread = differences(*pocket.exported(**options), options.get("task", "like"))
    assert difference < 1e-5
    assert (
        spread > 0.02
    )  # though little, beside a base that nobody fitted, they differ, so that equality says something


@pytest.mark.parametrize(
    ("dtype", "most", "unpacks"), [("float16", 0.001, True), ("int8", 0.015, True), ("int8", 0.03, False)]
)
def test_rounded_weights_are_smaller_and_near(monkeypatch, tmp_path, dtype, most, unpacks):
    monkeypatch.setattr(module, "LEAST_WEIGHTS", 256)
    monkeypatch.setattr(module, "MOST_UNPACKED", 1 << 24 if unpacks else 0)
    made, whole = pocket.exported()
    folder = tmp_path / "phone"
    module.export(made, folder, dtype=dtype)
    difference, _ = differences(made, folder)
    assert 0 < difference < most
    assert (folder / device.LOWER).stat().st_size < 0.7 * (whole / device.LOWER).stat().st_size
    kinds = {node.op_type for node in onnx.load(folder / device.LOWER).graph.node}
    assert ("MatMulNBits" in kinds) == (not unpacks)
    rows = pocket.rows()[0]
    here = Device.load(folder)
    alone = [here.scores(row)[-1] for row in rows.by_timestamp()]
    np.testing.assert_allclose(alone, here.scores(rows)[-len(alone) :], atol=1e-6)


def test_four_bits_are_smaller_still(monkeypatch):
    monkeypatch.setattr(module, "LEAST_WEIGHTS", 256)
    difference, spread = differences(*pocket.exported("int4"))
    assert 0.001 < difference < spread / 2
    four, eight = (weights(pocket.exported(dtype)[1]) for dtype in ("int4", "int8"))
    assert 2 * four == eight > 0


def weights(folder):
    """Bytes of the rounded matrices in the upper graph."""
    stored = onnx.load(folder / device.UPPER).graph.initializer
    return sum(len(one.raw_data) for one in stored if one.name.endswith(".rounded"))


@pytest.mark.parametrize(("bits", "most"), [(8, 127), (4, 7)])
def test_rounding_is_within_half_a_step(bits, most):
    weights = np.random.default_rng(0).normal(size=(7, 32)).astype(np.float32)
    weights[3] = 0
    scale, rounded = module._rounded(weights, bits)
    assert np.abs(scale * rounded - weights).max() <= scale.max() / 2 * 1.001
    assert np.abs(rounded).max() == most
    assert not rounded[3].any()


def test_the_card_says_what_the_folder_is():
    made, folder = pocket.exported()
    manifest = device.verify_folder(folder)
    assert (manifest.task, manifest.domain, manifest.depth, manifest.keep, manifest.width) == (
        "like",
        "movielens",
        2,
        1,
        32,
    )
    assert (manifest.model, manifest.tuning, manifest.dtype) == (
        made.foundation.model.id,
        made.adapter.digest(),
        "float32",
    )
    assert {file.name for file in folder.iterdir()} == {*manifest.files, device.MANIFEST}
    assert onnx.load(folder / device.UPPER).opset_import[0].version == manifest.opset


def test_no_path_of_this_machine_leaves_it():
    _, folder = pocket.exported()
    for file in folder.iterdir():
        content = file.read_bytes()
        assert str(Path(module.__file__).parents[2]).encode() not in content
        assert torch.__path__[0].encode() not in content


def test_a_folder_is_written_whole_or_not_at_all(monkeypatch, tmp_path):
    def fail(*given):
        raise OSError("the disk is full")

    monkeypatch.setattr(onnx, "save", fail)
    with pytest.raises(OSError, match="full"):
        module.export(pocket.tuned(), tmp_path / "phone")
    assert not list(tmp_path.iterdir())


REFUSED: dict[str, Any] = {
    "bfloat16": ({}, {"dtype": "bfloat16"}, "choose one of float32, float16, int8, int4"),
    "neither reads nor is told": ({}, {"lower": False, "states": False}, "can't read texts"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_is_said(tmp_path, name):
    made, options, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        module.export(pocket.tuned(**made), tmp_path / "phone", **options)
    assert not list(tmp_path.iterdir())


def test_a_foundation_in_bfloat16_is_refused(tmp_path):
    made = pocket.tuned()
    made.foundation.model.to(torch.bfloat16)
    with pytest.raises(ConfigError, match="load it with float32"):
        module.export(made, tmp_path / "phone")


def test_a_folder_that_exists_is_left_alone(tmp_path):
    with pytest.raises(ConfigError, match="exists already"):
        module.export(pocket.tuned(), tmp_path)


def test_without_onnx_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ExtraError, match=r"m6rec\[edge\]"):
        module.export(pocket.tuned(), tmp_path / "phone")


def test_a_parcel_spares_the_device_the_lower_half(tmp_path):
    made, folder = pocket.exported()
    file = tmp_path / "items.safetensors"
    module.send(made, list(pocket.ITEMS.values()), pocket.interactions(), file)
    here = Device.load(folder)
    here.receive(file)
    ranked = here.rank(["i1", "i2", "i7"])
    assert "_lower" not in vars(here)  # not even opened
    plain = Device.load(folder)
    module.send(made, list(pocket.ITEMS.values()), pocket.interactions(), file, states=False)
    plain.receive(file)
    again = plain.rank(["i1", "i2", "i7"])
    assert "_lower" in vars(plain)
    assert [one.item for one in ranked] == [one.item for one in again]
    np.testing.assert_allclose([one.score for one in ranked], [one.score for one in again], atol=1e-6)
    assert [file.name for file in tmp_path.iterdir()] == ["items.safetensors"]


def test_states_of_another_model_are_refused(tmp_path):
    _, folder = pocket.exported()
    file = tmp_path / "items.safetensors"
    module.send(pocket.tuned(seed=1), list(pocket.ITEMS.values()), pocket.interactions(), file)
    here = Device.load(folder)
    with pytest.raises(AssetError, match=r"of model tiny-4-1.*runs tiny-4-0"):
        here.receive(file)
    assert not here.items


def test_the_items_of_the_folder_are_there_from_the_start(tmp_path):
    made, folder = pocket.tuned(), tmp_path / "phone"
    seen = []
    items = list(pocket.ITEMS.values())
    manifest = module.export(
        made, folder, items=items, interactions=pocket.interactions(), progress=lambda *now: seen.append(now)
    )
    assert seen == [(step, module.STEPS) for step in range(module.STEPS + 1)]
    assert device.ITEMS in manifest.files
    store = tmp_path / "me.sqlite"
    assert Device.load(folder, store).items == pocket.ITEMS
    assert Device.load(folder, store).items == pocket.ITEMS
    bundle = (folder / device.ITEMS).read_bytes()
    assert not any(rf"\"{user}\"".encode() in bundle for user in pocket.USERS)  # nobody's events leave the server
    assert rb"\"i0\"" in bundle


def test_states_of_behaviours_and_facts_spare_the_lower_half_too(tmp_path):
    made, folder = pocket.exported()
    file = tmp_path / "items.safetensors"
    module.send(
        made, list(pocket.ITEMS.values()), pocket.interactions(), file, event_texts=True, user=pocket.USERS["u1"]
    )
    here = Device.load(folder, user=pocket.USERS["u1"])
    here.receive(file)
    here.ingest([event for event in pocket.LOG if event.user == "u1"])
    here.rank(["i1", "i2"])
    assert "_lower" not in vars(here)


def test_a_folder_that_cannot_read_ranks_by_what_it_is_sent(tmp_path):
    made, folder = pocket.tuned(), tmp_path / "phone"
    manifest = module.export(
        made, folder, items=list(pocket.ITEMS.values()), interactions=pocket.interactions(), lower=False
    )
    assert manifest.files.keys() == {device.UPPER, device.ADAPTERS, device.ITEMS}
    user = pocket.USERS["u0"]
    here, whole = Device.load(folder, user=user), Device.load(pocket.exported()[1], user=user)
    whole.receive(folder / device.ITEMS)
    mine = [event for event in pocket.LOG if event.user == "u0"]
    here.ingest(mine)
    whole.ingest(mine)
    assert here.rank(["i1", "i2"]) == whole.rank(["i1", "i2"])
    here.upsert_items([Item("new", "New")])
    with pytest.raises(DataError, match=r"the state of the text .* was not sent"):
        here.rank(["new"])


def test_a_run_that_is_left_early_is_left_as_early_on_a_device(tmp_path):
    whole = pocket.tuned(depth=1)
    early = ScoreModel(whole.config, whole.foundation, whole.adapter, whole.cache, exit_after=1)
    module.export(early, tmp_path / "phone")
    difference, _ = differences(early, tmp_path / "phone")
    assert difference < 1e-5
    assert np.abs(early.scores(pocket.rows()) - whole.scores(pocket.rows())).max() > 1e-3
