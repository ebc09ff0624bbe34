import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from m6rec import adapters
from m6rec.adapters import TaskAdapterConfig
from m6rec.errors import AssetError, ConfigError
from tests import tiny


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "ia3"}, "no tuning method 'ia3'. Known are prompt, option, adapter, option-adapter, lora"),
        ({"method": "head", "first_layer": -1}, "first_layer is -1; it must be at least 0"),
        ({"method": "head", "num_classes": 1}, "num_classes is 1; give 2 or more"),
        ({"method": "option", "num_prompts": 3, "num_classes": 5}, "num_prompts is 3; give at least 5"),
        ({"method": "adapter", "adapter_rank": -1}, "adapter_rank is -1; it must be at least 0"),
        ({"method": "lora", "lora_rank": 0}, "lora_rank is 0"),
        ({"method": "full", "first_layer": 1}, "choose 'upper'"),
        ({"method": "upper", "first_layer": 0}, "choose 'full'"),
    ],
)
def test_configs_that_make_no_sense(options, message):
    with pytest.raises(ConfigError, match=message):
        TaskAdapterConfig(**{"first_layer": 0, **options})


def test_first_layer_beyond_the_model(model):
    with pytest.raises(ConfigError, match="first_layer is 4, but the foundation has 4 layers"):
        adapters.create(TaskAdapterConfig(method="adapter", first_layer=4), model, seed=0)


def test_the_seed_fixes_everything(model):
    config = TaskAdapterConfig(method="option-adapter", first_layer=2, num_event_features=3)
    state = torch.random.get_rng_state()
    first, same, other = (adapters.create(config, model, seed=seed).digest() for seed in (1, 1, 2))
    assert first == same != other
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_a_tuning_was_not_made_for(model):
    t = adapters.create(TaskAdapterConfig(method="option", first_layer=2, num_classes=0), model, seed=0)
    with pytest.raises(ConfigError, match="num_classes=0"):
        t.score(torch.zeros(1, 32))
    with pytest.raises(ConfigError, match="num_event_features"):
        t.encode_events(torch.zeros(1, 1, 3))


def test_card(model, tmp_path):
    t = adapters.create(TaskAdapterConfig(method="lora", first_layer=3), model, seed=0)
    t.save(tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["foundation"] == model.id
    assert card["parameters"] == t.num_trainable()
    assert card["config"]["method"] == "lora"
    assert set(card) == {"config", "foundation", "parameters", "m6rec"}


def test_saving_again_replaces_and_leaves_other_files(model, tmp_path):
    (tmp_path / "report.json").write_text("{}")
    for seed in range(2):
        t = adapters.create(TaskAdapterConfig(method="head", first_layer=0), model, seed=seed)
        t.save(tmp_path)
    assert adapters.load(tmp_path, model).digest() == t.digest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "report.json", "tuning.safetensors"]


def test_a_tuning_of_another_foundation(model, tmp_path):
    t = adapters.create(TaskAdapterConfig(method="lora", first_layer=3), model, seed=0)
    t.save(tmp_path)
    other = tiny.model(seed=1)
    with pytest.raises(ConfigError, match=f"belongs to foundation {model.id}, but the model given is {other.id}"):
        adapters.load(tmp_path, other)
    with pytest.raises(ConfigError, match=f"belongs to foundation {model.id}, but the model given is {other.id}"):
        t.merge(other)


def test_nothing_readable(model, tmp_path):
    with pytest.raises(AssetError, match=r"tuning\.safetensors is not an adapter that this m6rec can read"):
        adapters.load(tmp_path, model)
    adapters.create(TaskAdapterConfig(method="head", first_layer=0), model, seed=0).save(tmp_path)
    file = tmp_path / "tuning.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(AssetError, match=r"tuning\.safetensors is not an adapter that this m6rec can read"):
        adapters.load(tmp_path, model)


def test_the_parts_of_another_version(model, tmp_path):
    made = adapters.create(TaskAdapterConfig(method="head", first_layer=0, num_features=4), model, seed=0)
    made.base = None
    made.save(tmp_path)
    with pytest.raises(AssetError, match=r"has other parameters than this m6rec.s adapters; tune again"):
        adapters.load(tmp_path, model)


def test_an_adapter_of_before_the_rename_is_refused_by_name(model, tmp_path):
    adapters.create(TaskAdapterConfig(method="head", first_layer=0, num_features=4), model, seed=0).save(tmp_path)
    file = tmp_path / "tuning.safetensors"
    with safe_open(file, "pt") as stored:
        card = stored.metadata()["card"].replace("num_features", "num_signals")
    save_file(load_file(file), file, metadata={"card": card})
    with pytest.raises(AssetError, match=r"unexpected keyword argument 'num_signals'.*tune it again"):
        adapters.load(tmp_path, model)


def test_merged_shares_what_did_not_change(model):
    merged = adapters.create(TaskAdapterConfig(method="lora", first_layer=3), model, seed=0).merge(model)
    assert merged.embed_tokens.weight.data_ptr() == model.embed_tokens.weight.data_ptr()
    for layer, shared in ((2, True), (3, False)):
        ours, theirs = (one.get_parameter(f"layers.{layer}.q_proj.weight") for one in (merged, model))
        assert (ours.data_ptr() == theirs.data_ptr()) is shared
    assert merged.id.startswith(model.id + "+")
    assert not any(parameter.requires_grad for parameter in merged.parameters())
