"""What must hold for every tuning method; a new method inherits all of it."""

import pytest
import torch

from m6rec import adapters, hooks
from m6rec.adapters import AdapterRouter, TaskAdapter, TaskAdapterConfig, methods
from m6rec.errors import ConfigError
from m6rec.foundation.config import ModelConfig
from m6rec.foundation.model import Model
from m6rec.types import SLOTS
from tests import tiny

DEPTH = 2
MERGEABLE = {"lora", "upper", "full"}


def config(method, **options):
    return TaskAdapterConfig(method=method, first_layer=0 if method == "full" else DEPTH, **options)


def create(method, model, *, seed=0, used=False, **options):
    """A tuning of ``model``, fresh or as if it had been trained."""
    made = adapters.create(config(method, **options), model, seed=seed)
    if used:
        tiny.as_if_trained((one for one in made.parameters() if one.requires_grad), seed=seed + 1, scale=0.1)
    return made


def upper(model, hook, prompts_BPD, slots_BSD, rows=slice(None)):
    """A use of everything that a tuning has: prompts, segment embeddings, and layers on both sides of the split."""
    context_BND = model.lower(tiny.ids(4, 6)[rows], DEPTH, hook=hook) + slots_BSD[:, 1:2]
    blocks_BCMD = model.lower(tiny.ids(4, 5, seed=1)[rows], DEPTH, hook=hook)[:, None] + slots_BSD[:, None, 2:3]
    context_BND = torch.cat([prompts_BPD.to(model.dtype), context_BND], 1).to(model.dtype)
    visible_BC = torch.full((len(context_BND), 1), context_BND.shape[1])
    return model.upper(context_BND, blocks_BCMD.to(model.dtype), visible_BC, DEPTH, hook=hook)[:, 0, -1]


def alone(model, made, rows=slice(None)):
    """normed_BD of one tuning."""
    batch = len(torch.arange(4)[rows])
    return upper(model, made, made.prompts_PD.expand(batch, -1, -1), made.slots_SD.expand(batch, -1, -1), rows)


@pytest.fixture(params=[(), (0, 1, 1, 1)], ids=["own blocks", "shared blocks"])
def model(request):
    return tiny.model(blocks=request.param)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", hooks.METHODS.names())
def test_a_fresh_tuning_changes_nothing(method, dtype):
    model = tiny.model(dtype=dtype)
    made = create(method, model)
    ids_BL = tiny.ids(2, 7)
    assert torch.equal(model(ids_BL, hook=made), model(ids_BL))
    assert not made.slots_SD.any()


@pytest.mark.parametrize("method", hooks.METHODS.names())
def test_merged_equals_unmerged(model, method):
    made = create(method, model, used=True)
    if method not in MERGEABLE:
        with pytest.raises(ConfigError, match=f"method '{method}' can't be merged"):
            made.merge(model)
        return
    merged, ids_BL = made.merge(model), tiny.ids(2, 7)
    before = model(ids_BL)
    torch.testing.assert_close(merged(ids_BL), model(ids_BL, hook=made), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(merged(ids_BL), before, atol=0.1)
    assert merged.id != model.id


@pytest.mark.parametrize("method", hooks.METHODS.names())
def test_only_its_own_parameters_train(model, method):
    made = create(method, model, used=True)
    frozen = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    trained = {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], lr=0.1, weight_decay=0)
    normed_BD = alone(model, made)
    made.score(normed_BD).square().sum().backward()
    optimizer.step()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in model.state_dict().items())
    moved = {name for name, tensor in made.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == trained


@pytest.mark.parametrize("method", hooks.METHODS.names())
def test_saved_equals_loaded(model, method, tmp_path):
    made = create(method, model, used=True, num_features=3, gate_columns=(0, 2))
    made.save(tmp_path)
    again = adapters.load(tmp_path, model)
    assert again.config == made.config
    assert again.digest() == made.digest()
    assert again.num_trainable() == made.num_trainable()
    normed_BD = alone(model, made)
    assert torch.equal(alone(model, again), normed_BD)
    features_BF = torch.randn(len(normed_BD), 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.score(normed_BD, features_BF), made.score(normed_BD, features_BF))


def count(method, c: ModelConfig, first_layer, *, classes=2, prompts=8, rank=8):
    """Trained parameters by hand."""
    d, f, layers = c.width, c.ffn_width, c.num_layers - first_layer
    query, key = c.num_heads * c.head_width, c.num_kv_heads * c.head_width
    slots, prompted, head = len(SLOTS) * d, prompts * d, classes * (d + 1)
    r = d // c.num_heads
    adapters = layers * (2 * d * r + r + d + 1)
    lora = layers * rank * (2 * (d + query) + 2 * (d + key) + 3 * (d + f))
    blocks = layers * (2 * d * query + 2 * d * key + 3 * d * f + 2 * d)
    return {
        "prompt": slots + prompted + head,
        "option": slots + prompted,
        "adapter": slots + adapters + head,
        "option-adapter": slots + prompted + adapters,
        "lora": slots + lora + head,
        "head": head,
        "upper": slots + blocks + head,
        "full": slots + blocks + head,
    }[method]


@pytest.mark.parametrize("method", hooks.METHODS.names())
def test_count_equals_the_hand_formula(model, method):
    made = create(method, model)
    assert made.num_trainable() == count(method, model.config, made.config.first_layer)
    assert made.trainable_share(model) == made.num_trainable() / model.num_parameters()


def test_option_adapters_of_smollm2_are_within_one_percent():
    raw = {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    }
    c = ModelConfig.from_hf(raw)
    with torch.device("meta"):
        num_parameters = Model(c).num_parameters()
    assert num_parameters == 134_515_008
    assert count("option-adapter", c, 24) == 6 * (2 * 576 * 64 + 576 + 64 + 1) + 8 * 576 + 5 * 576 == 453_702
    assert count("option-adapter", c, 24) / num_parameters < 0.0034
    assert count("option-adapter", c, 0) / num_parameters < 0.017  # all layers, as in the paper


@pytest.mark.parametrize("method", hooks.METHODS.names())
def test_single_equals_batch(model, method):
    made = create(method, model, used=True)
    batch = alone(model, made)
    for b in range(4):
        torch.testing.assert_close(alone(model, made, slice(b, b + 1)), batch[b : b + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", hooks.METHODS.names())
def test_a_mixed_batch_equals_each_alone(model, method):
    neighbour = "option-adapter" if methods.named(method).prompts else "lora"
    tunings: list[TaskAdapter] = [
        create(method, model, seed=1, used=True),
        create(neighbour, model, seed=2, used=True),
        create(method, model, seed=3, used=True),
    ]
    task_B = torch.tensor([2, 0, 1, 0])
    mixture = AdapterRouter(tunings, task_B)
    mixed = upper(model, mixture, mixture.prompts_BPD, mixture.slots_BSD)
    for b, task in enumerate(task_B.tolist()):
        torch.testing.assert_close(mixed[b], alone(model, tunings[task])[b], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", hooks.METHODS.names())
def test_states_below_first_layer_are_those_of_the_foundation(model, method):
    ids_BL = tiny.ids(2, 7)
    tuned_BLD = model.lower(ids_BL, DEPTH, hook=create(method, model, used=True))
    assert torch.equal(tuned_BLD, model.lower(ids_BL, DEPTH)) == (method != "full")
