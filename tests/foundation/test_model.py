import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from m6rec.errors import AssetError, ConfigError
from m6rec.foundation import checkpoint
from m6rec.foundation.attention import CachedQuery, Dense, SharedContext
from m6rec.foundation.config import ModelConfig
from m6rec.foundation.model import Model
from tests import reference, tiny

LENGTH = 13


@pytest.mark.parametrize("name", tiny.HF_CONFIGS)
def test_logits_equal_transformers(pairs, name):
    foundation, theirs = pairs(name)
    ours = foundation.model
    ids_BL = tiny.ids(2, LENGTH)
    with torch.no_grad():
        expected = theirs(ids_BL).logits
    assert expected.std() > 0.5
    torch.testing.assert_close(ours(ids_BL), expected, rtol=0, atol=1e-4)


def test_logits_of_smollm2_equal_transformers():
    try:
        ours = checkpoint.load("smollm2-135m", dtype="float32")
    except AssetError as error:
        pytest.skip(str(error))
    import transformers

    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint.locate("smollm2-135m"), dtype=torch.float32, attn_implementation="eager"
    )
    ids_BL = torch.tensor(ours.tokenizer.encode(['The user likes the movie "Toy Story" and also the movie']))
    with torch.no_grad():
        torch.testing.assert_close(ours.model(ids_BL), theirs(ids_BL).logits, rtol=0, atol=1e-4)
    assert ours.model.num_parameters() == 134_515_008


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("length", [None, 4])
def test_shared_context_equals_slow_attention(window, length):
    num_context, size, visible = 5, 4, [0, 3, 4]
    generator = torch.Generator().manual_seed(1)
    total = num_context + size * len(visible)
    q = torch.randn(1, 4, total, 8, generator=generator)
    k, v = (torch.randn(1, 2, total, 8, generator=generator) for _ in range(2))
    positions, sees = reference.shared_context(num_context, size, visible, length, window)
    attention = SharedContext(
        torch.tensor([positions]),
        torch.tensor([visible]),
        num_context,
        size,
        None if length is None else torch.tensor([length]),
    )
    torch.testing.assert_close(attention(q, k, v, window, 0.3)[0], reference.attend(q[0], k[0], v[0], sees, 0.3))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", ["llama", "qwen2-sliding", "qwen3", "gemma3"])
def test_upper_from_depth_0_equals_the_unsplit_model(pairs, name, bidirectional):
    model = pairs(name)[0].model
    context_BN, blocks_BCM = tiny.ids(2, 9), tiny.ids(2, 3, 7, seed=1)
    lengths, visible = [9, 6], [[0, 4, 9], [2, 6, 6]]
    normed_BCMD = model.upper(
        model.embed(context_BN),
        model.embed(blocks_BCM),
        torch.tensor(visible),
        0,
        length_B=torch.tensor(lengths) if bidirectional else None,
    )
    for b in range(2):
        length = lengths[b] if bidirectional else None
        positions, sees = reference.shared_context(9, 7, visible[b], length, None)
        row_BL, positions_BL = torch.cat([context_BN[b], blocks_BCM[b].flatten()])[None], torch.tensor([positions])
        attention = Dense(positions_BL, reference.mask(len(positions), sees)[None])
        expected = model.finish(model.run(model.embed(row_BL), positions_BL, attention))[0, 9:]
        torch.testing.assert_close(normed_BCMD[b].flatten(0, 1), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_a_candidate_after_a_causal_context_is_one_plain_text(pairs, name):
    model = pairs(name)[0].model
    context_BN, blocks_BCM = tiny.ids(1, 9), tiny.ids(1, 3, 7, seed=1)
    visible = [0, 4, 9]
    normed_BCMD = model.upper(model.embed(context_BN), model.embed(blocks_BCM), torch.tensor([visible]), 0)
    for c, seen in enumerate(visible):
        text_BL = torch.cat([context_BN[:, :seen], blocks_BCM[:, c]], 1)
        torch.testing.assert_close(model.logits(normed_BCMD[:, c]), model(text_BL)[:, seen:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("depth", range(4))
def test_split_at_any_depth_with_one_segment_equals_unsplit(pairs, name, depth):
    model = pairs(name)[0].model
    ids_BL = tiny.ids(2, LENGTH)
    states_BLD = model.lower(ids_BL, depth)
    nothing = torch.zeros(2, 0, model.config.width)
    normed_BCMD = model.upper(nothing, states_BLD[:, None], torch.zeros(2, 1, dtype=torch.long), depth)
    torch.testing.assert_close(model.logits(normed_BCMD[:, 0]), model(ids_BL), rtol=0, atol=1e-4)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_is_inert(pairs, bidirectional):
    model = pairs("gemma3")[0].model
    context_BND, blocks_BCMD = model.embed(tiny.ids(2, 9)), model.embed(tiny.ids(2, 3, 5, seed=1))
    length_B = torch.tensor([7, 4])
    visible_BC = torch.tensor([[7, 7, 2], [4, 0, 4]])

    def run():
        return model.upper(context_BND, blocks_BCMD, visible_BC, 1, length_B=length_B if bidirectional else None)

    before = run()[:, :, :3]
    context_BND[0, 7:], context_BND[1, 4:], blocks_BCMD[:, :, 3:] = 9.0, -9.0, 5.0
    assert torch.equal(run()[:, :, :3], before)


def test_lower_ignores_padding_and_neighbours(pairs):
    model = pairs("gemma3")[0].model
    ids_BL = tiny.ids(3, LENGTH)
    together = model.lower(ids_BL, 2)
    alone = model.lower(ids_BL[1:2, :8], 2)
    torch.testing.assert_close(together[1:2, :8], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_single_equals_batch(pairs, bidirectional):
    model = pairs("qwen3")[0].model
    context_BND, blocks_BCMD = model.embed(tiny.ids(2, 9)), model.embed(tiny.ids(2, 3, 5, seed=1))
    visible_BC, length_B = torch.tensor([[9, 5, 2], [6, 0, 4]]), torch.tensor([9, 6])

    def upper(b, c):
        length = length_B[b] if bidirectional else None
        return model.upper(context_BND[b], blocks_BCMD[b, c], visible_BC[b, c], 1, length_B=length)

    batch = upper(slice(None), slice(None))
    for b in range(2):
        for c in range(3):
            alone = upper(slice(b, b + 1), slice(c, c + 1))
            torch.testing.assert_close(batch[b : b + 1, c : c + 1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", tiny.HF_CONFIGS)
@pytest.mark.parametrize("size", [1, 3])
def test_turns_equal_one_pass_over_all_that_was_said(pairs, name, size):
    model = pairs(name)[0].model
    context_ND, blocks_CMD = model.embed(tiny.ids(1, 11))[0], model.embed(tiny.ids(2, size, seed=1))
    other_ND = model.embed(tiny.ids(1, 4, seed=2))[0]
    known, start = (), 0
    for end in (5, 11, 11):  # at last, nothing is new
        turns = [CachedQuery(known, context_ND[start:end], blocks_CMD), CachedQuery((), other_ND, blocks_CMD[:1])]
        (mine, others), (known, _) = model.forward_cached(turns, 1)
        for found_CMD, all_ND in ((mine, context_ND[:end]), (others, other_ND)):
            count = len(found_CMD)
            whole = model.upper(all_ND[None], blocks_CMD[None, :count], torch.full((1, count), len(all_ND)), 1)
            torch.testing.assert_close(found_CMD, whole[0], rtol=0, atol=1e-5)
        start = end


def test_no_candidates_and_no_context_run(pairs):
    model = pairs("llama")[0].model
    nothing, none = torch.zeros(1, 0, 3, 32), torch.zeros(1, 0, dtype=torch.long)
    assert model.upper(model.embed(tiny.ids(1, 4)), nothing, none, 0).shape == (1, 0, 3, 32)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_bf16_stays_near_fp32(pairs, name):
    model = pairs(name)[0].model
    half = Model(model.config)
    half.load_state_dict(model.state_dict())
    half = half.to(torch.bfloat16)
    ids_BL = tiny.ids(2, LENGTH)
    states = half.lower(ids_BL, 1)
    nothing, none = states.new_zeros(2, 0, 32), torch.zeros(2, 1, dtype=torch.long)
    logits = half.logits(half.upper(nothing, states[:, None], none, 1)[:, 0])
    assert logits.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(logits.float(), model(ids_BL), dim=-1).min() > 0.98


def test_a_foundation_is_frozen():
    assert not any(parameter.requires_grad for parameter in tiny.model().parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "'mamba' is not supported; choose a model of llama"),
        ({"hidden_act": "relu"}, "activation 'relu'"),
        ({"rope_scaling": {"type": "yarn"}}, "rope scaling 'yarn'"),
        ({"final_logit_softcapping": 30.0}, "soft-capping"),
    ],
)
def test_configs_that_are_not_supported(changes, message):
    raw = {"model_type": "llama", "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8}
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_hf({**raw, "intermediate_size": 8, "vocab_size": 8, **changes})


@pytest.mark.parametrize(("given", "read"), [(2, (2,)), ([1, 106], (1, 106)), (None, ())])
def test_the_tokens_that_end_a_text(given, read):
    shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 8}
    text = {"model_type": "gemma3_text", "vocab_size": 8, **shape}
    assert ModelConfig.from_hf({**text, "eos_token_id": given}).end_ids == read
    assert ModelConfig.from_hf({"model_type": "gemma3", "text_config": text, "eos_token_id": given}).end_ids == read


def test_transformers_4_configs_mean_the_same():
    shape = {
        "num_hidden_layers": 7,
        "num_attention_heads": 2,
        "hidden_size": 8,
        "intermediate_size": 8,
        "vocab_size": 8,
    }
    old = {"model_type": "gemma3_text", "rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window": 512, **shape}
    old |= {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "hidden_activation": "gelu_pytorch_tanh"}
    config = ModelConfig.from_hf({"model_type": "gemma3", "text_config": old})
    assert config.windows == (512, 512, 512, 512, 512, None, 512)
    assert (config.rope.theta, config.rope.scaling, config.rope.factor) == (1e6, "linear", 8.0)
    assert (config.local_rope.theta, config.local_rope.scaling) == (1e4, "default")


@pytest.mark.parametrize("name", tiny.HF_CONFIGS)
def test_a_configuration_is_written_as_it_is_read(name):
    config = ModelConfig.from_hf(tiny.HF_CONFIGS[name]().to_dict())
    assert ModelConfig.from_hf(json.loads(json.dumps(config.to_hf()))) == config


def test_layers_that_share_weights_are_one_layer_run_again():
    plain = tiny.model(num_layers=1)
    shared = Model(replace(plain.config, num_layers=3, windows=(None,) * 3, blocks=(0, 0, 0)))
    shared.load_state_dict(plain.state_dict())
    assert shared.num_parameters() == plain.num_parameters()
    ids_BL = tiny.ids(2, 5)
    hidden_BLD = plain.embed(ids_BL)
    positions_BL = torch.arange(5).expand(2, 5)
    for _ in range(3):
        hidden_BLD = plain.run(hidden_BLD, positions_BL, Dense(positions_BL))
    torch.testing.assert_close(shared.lower(ids_BL, 3), hidden_BLD)


def reading_model():
    """A model of one layer above a reader of two, which share weights and have a narrow table."""
    config = tiny.model(num_layers=1).config
    shape: dict[str, Any] = {
        "width": 16,
        "head_width": 4,
        "attention_scale": 4**-0.5,
        "num_layers": 2,
        "windows": (None, None),
    }
    reader = replace(config, **shape, blocks=(0, 0), embed_width=6)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Model(replace(config, reader=reader))


def test_a_reader_stands_in_place_of_embeddings():
    model = reading_model()
    ids_BL = tiny.ids(2, 5)
    reader = model.reader
    expected = model.widen(reader.finish(reader.lower(ids_BL, 2)))
    torch.testing.assert_close(model.lower(ids_BL, 0), expected)
    torch.testing.assert_close(model.lower(ids_BL[:, :3], 0), expected[:, :3])  # a token's state knows no later ones
    assert model.lower(ids_BL, 1).shape == (2, 5, 32)
    with pytest.raises(ConfigError, match="only reads"):
        model(ids_BL)


def test_a_reading_model_is_saved_and_loaded(tmp_path):
    model = reading_model()
    tiny.fast_tokenizer().save(str(tmp_path / "tokenizer.json"))
    checkpoint.save(model, model.config.to_hf(), tmp_path / "tokenizer.json", tmp_path / "small")
    again = checkpoint.load(str(tmp_path / "small"), dtype="float32").model
    assert again.config == model.config
    assert torch.equal(again.lower(tiny.ids(2, 5), 1), model.lower(tiny.ids(2, 5), 1))
