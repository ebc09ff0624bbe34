from dataclasses import replace

import numpy as np
import pytest
import torch

from m6rec import hooks
from m6rec.errors import AssetError, ConfigError
from m6rec.foundation.generate import Engine, Sampling
from m6rec.foundation.states import CacheConfig, StateCache
from m6rec.readouts import GenerateModel, TaskModelConfig
from m6rec.readouts import generate as module
from m6rec.text.constraints import TitleTrie
from m6rec.types import SLOTS, Draft, Segment
from tests import tiny

END = 0
PAST = tuple(
    Segment(text, slot)
    for text, slot in (("A shopper.", "user"), ("The tent. It is in the attic.", "history"), ("Hats.", "history"))
)
DRAFTS = [
    Draft(PAST[:2], "The user says of the tent:", " that it is too small.", 3),
    Draft((), "And:", " no", 4),
    Draft(PAST, "The user says:", " nothing", 5),
    Draft(PAST[:1], "The user says:", " they are here", 6),
    Draft(PAST, "The title is:", "", 7),
]
SPLITS = [{"depth": 2, "keep": 1}, {"depth": 3, "keep": 2}, {"depth": 0, "keep": 0}]


def foundation(**options):
    """A tiny model that isn't sure of anything and can end a text."""
    made = tiny.foundation(**options)
    made.model.embed_tokens.weight.mul_(0.2)
    made.model.config = replace(made.model.config, end_ids=(END,))
    return made


FOUNDATION = foundation()


def make(*, used=True, seed=0, cache=None, base=FOUNDATION, **options):
    """A writer, fresh or as if it had been trained."""
    config = TaskModelConfig(task="explain", domain="generic", foundation="tiny", **{"depth": 2, **options})
    made = GenerateModel.create(config, base, cache=cache, seed=seed)
    if used:
        tiny.as_if_trained(made.adapter.parameters(), seed=seed)
    return made


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


class Only:
    """The one text of these tokens."""

    start = 0

    def __init__(self, ids):
        self._ids = ids

    def allowed(self, state):
        return np.array(self._ids[state : state + 1], np.int64)

    def may_end(self, state):
        return state == len(self._ids)

    def advance(self, state, token):
        return state + 1


@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("method", ["option-adapter", "lora", "upper"])
def test_nats_are_those_of_generation_step_by_step(monkeypatch, method, split):
    """The engine is forced to write the target, token after token; its end is what it would then choose last."""
    if method == "upper" and not split["depth"]:
        method = "full"
    writer = make(method=method, **split)
    nats, counts = writer.nats(DRAFTS)
    chosen = []
    inner = Engine._logits

    def recorded(self, beams, lengths):
        logits_BV = inner(self, beams, lengths)
        if all(beam.cache.length == len(beam.ids) for beam in beams):
            chosen.append(logits_BV[0].log_softmax(-1))
        return logits_BV

    monkeypatch.setattr(Engine, "_logits", recorded)
    for number, draft in enumerate(DRAFTS[:4]):
        chosen.clear()
        ids = FOUNDATION.tokenizer.encode([draft.target])[0]
        longer = Only([*ids, 5])  # a token more, so that the model is asked what comes after the target
        made = writer.write([draft], Sampling(max_tokens=len(ids) + 1), [longer])[0]
        assert made.ids[: len(ids)] == tuple(ids)
        steps = [nats_V[token].item() for nats_V, token in zip(chosen, [*ids, END], strict=True)]
        assert counts[number] == len(steps)
        assert nats[number] == pytest.approx(sum(steps), abs=1e-4)


def test_a_text_written_to_its_end_has_the_nats_that_it_was_written_with():
    writer = make()
    trie = TitleTrie(FOUNDATION.tokenizer, [" the tent", " the tents", " hats"])
    written = writer.write(DRAFTS, Sampling(max_tokens=trie.longest + 1, temperature=1.0, seed=1), [trie] * len(DRAFTS))
    wholes = [replace(draft, target=one.text) for draft, one in zip(DRAFTS, written, strict=True)]
    nats, _ = writer.nats(wholes)
    ended = [one.text == " the tent" for one in written]  # the others end where nothing may follow, without a token
    assert {one.text for one in written} <= {" the tent", " the tents", " hats"}
    for one, total, whole in zip(written, nats, ended, strict=True):
        assert one.log_probability == pytest.approx(total, abs=1e-3) if whole else one.log_probability > total


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_without_a_split_or_with_one_it_is_lower_then_upper(split):
    """Depth 0 with all tokens kept is the unsplit model; else the context is what the split keeps of it."""
    writer = make(**split)
    model, encode, tuning = FOUNDATION.model, FOUNDATION.tokenizer.encode, writer.adapter
    nats, _ = writer.nats(DRAFTS)
    for draft, expected in zip(DRAFTS, nats, strict=True):
        context = [tuning.prompts_PD]
        for segment in draft.context:
            kept = model.lower(torch.tensor(encode([segment.text])), split["depth"])[0]
            context.append(kept[-split["keep"] :] + tuning.slots_SD[SLOTS.index(segment.slot)])
        prompt, target = (encode([text])[0] for text in (draft.prompt, draft.target))
        text = model.lower(torch.tensor([prompt + target]), split["depth"])[0]
        text = text + tuning.slots_SD[SLOTS.index("candidate")]
        whole = torch.cat([*context, text])[None]
        positions = torch.arange(whole.shape[1])[None]
        hidden = model.run(whole, positions, module_dense(positions), first=split["depth"], hook=tuning)
        nats_TV = model.logits(model.finish(hidden))[0, -len(target) - 1 :].log_softmax(-1)
        assert nats_TV[torch.arange(len(target) + 1), [*target, END]].sum().item() == pytest.approx(expected, abs=1e-4)


def module_dense(positions):
    from m6rec.foundation.attention import Dense

    return Dense(positions)


@pytest.mark.parametrize("method", hooks.METHODS.names())
def test_a_fresh_tuning_changes_nothing(method):
    """But for prompts, which stand before the context from the start."""
    depth = 0 if method == "full" else 2
    plain = make(used=False, method="adapter", depth=depth)
    with torch.no_grad():
        fresh = make(used=False, method=method, depth=depth)
        fresh.adapter.prompts = None
    np.testing.assert_array_equal(fresh.nats(DRAFTS)[0], plain.nats(DRAFTS)[0])
    assert np.abs(make(method="adapter", depth=depth).nats(DRAFTS)[0] - plain.nats(DRAFTS)[0]).max() > 1e-3


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_single_equals_batch_in_any_order(split):
    writer = make(**split)
    nats, counts = writer.nats(DRAFTS)
    close(nats, [writer.nats([draft])[0][0] for draft in DRAFTS])
    backwards, reversed_counts = make(**split).nats(DRAFTS[::-1])
    close(backwards, nats[::-1])
    np.testing.assert_array_equal(reversed_counts, counts[::-1])
    assert writer.loss(DRAFTS).item() == pytest.approx(-nats.sum() / counts.sum(), rel=1e-5)


def test_batches_of_one_equal_one_batch():
    writer, seen = make(), []
    nats, _ = writer.nats(DRAFTS)
    writer.cache = StateCache(FOUNDATION, writer.cache.config, limits=CacheConfig(batch_tokens=1))
    close(writer.nats(DRAFTS, lambda done, total: seen.append((done, total)))[0], nats)
    assert seen == [(n, 5) for n in range(1, 6)]


def test_texts_are_written_as_alone_and_from_the_past(monkeypatch):
    writer = make()
    sampling = Sampling(max_tokens=8)
    alone = [writer.write([draft], sampling)[0].ids for draft in DRAFTS]
    monkeypatch.setattr(module, "TOGETHER", 2)
    assert [one.ids for one in writer.write(DRAFTS, sampling)] == alone
    others = [replace(draft, target="x") for draft in DRAFTS]
    assert [one.ids for one in writer.write(others, sampling)] == alone  # the target is not looked at
    nats = writer.nats([DRAFTS[2], replace(DRAFTS[2], context=PAST[:1])])[0]
    assert abs(nats[0] - nats[1]) > 1e-3  # the context is


def test_kept_states_change_nothing_and_have_their_budget(monkeypatch):
    writer = make()
    first = writer.nats(DRAFTS)[0]
    np.testing.assert_array_equal(writer.nats(DRAFTS)[0], first)
    ran = []
    lower = FOUNDATION.model.lower
    monkeypatch.setattr(FOUNDATION.model, "lower", lambda *given, **options: ran.append(1) or lower(*given, **options))
    writer.nats(DRAFTS)
    assert not ran
    poor = make(cache=StateCache(FOUNDATION, writer.cache.config, limits=CacheConfig(training_bytes=0)))
    poor.nats(DRAFTS)  # contexts stay in the cache
    close(poor.nats(DRAFTS)[0], first)
    ran.clear()
    close(poor.nats(DRAFTS)[0], first)
    assert ran


@pytest.mark.parametrize("method", hooks.METHODS.names())
def test_every_method_trains_and_comes_back(method, tmp_path):
    writer = make(method=method, depth=0 if method == "full" else 2)
    trained = [parameter for parameter in writer.adapter.parameters() if parameter.requires_grad]
    if trained:
        writer.loss(DRAFTS).backward()
        assert any(parameter.grad is not None and parameter.grad.any() for parameter in trained)
    assert all(parameter.grad is None for parameter in FOUNDATION.model.parameters())
    writer.save(tmp_path)
    again = GenerateModel.load(tmp_path, FOUNDATION)
    assert again.config == writer.config
    assert again.digest() == writer.digest()
    np.testing.assert_array_equal(again.nats(DRAFTS)[0], writer.nats(DRAFTS)[0])


def test_a_digest_tells_what_makes_texts():
    assert len({one.digest() for one in (make(), make(seed=1), make(keep=2), make(depth=1))}) == 4


def test_a_cache_is_shared_where_the_split_is_the_same():
    writer = make()
    assert make(cache=writer.cache, seed=1).cache is writer.cache
    assert make(cache=writer.cache, depth=1).cache.config.depth == 1
    deep = foundation(num_layers=GenerateModel.UPPER_LAYERS + 2)
    assert make(base=deep, depth=None).cache.config.depth == 2


def test_errors(tmp_path):
    with pytest.raises(ConfigError, match="all_layers with depth 2: training can't read cached states"):
        make(all_layers=True)
    assert make(all_layers=True, depth=0).adapter.config.first_layer == 0
    with pytest.raises(ConfigError, match="has no token that ends a text"):
        make(base=tiny.foundation()).nats(DRAFTS[:1])
    for run in (make().nats, make().loss, lambda drafts: make().write(drafts, Sampling())):
        with pytest.raises(ConfigError, match="a prompt without a token can't be gone on from"):
            run([DRAFTS[0], Draft(PAST, "", " no")])
    with pytest.raises(AssetError, match=r"holds no tuned task .*make one with `m6rec tune --run"):
        GenerateModel.load(tmp_path, FOUNDATION)
    make().save(tmp_path)
    with pytest.raises(ConfigError, match="belongs to foundation tiny-4-0, but the model given is tiny-4-1"):
        GenerateModel.load(tmp_path, foundation(seed=1))
