"""Generation: equal to one pass and to transformers, batches inert, every text within its rules."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from m6rec.adapters import TaskAdapterConfig, create
from m6rec.errors import ConfigError
from m6rec.foundation import generate
from m6rec.foundation.attention import CachedQuery
from m6rec.foundation.generate import Engine, Prompt, Sampling
from m6rec.text.constraints import TitleTrie
from tests import tiny

DEPTH = 2
END = 0


@pytest.fixture
def foundation():
    made = tiny.foundation()
    made.model.embed_tokens.weight.mul_(0.2)  # so that it isn't sure of anything
    made.model.config = replace(made.model.config, end_ids=(END,))
    return made


def tuning_of(model, method="option-adapter", first_layer=DEPTH):
    """A tuning as if it had been trained."""
    made = create(TaskAdapterConfig(method=method, first_layer=first_layer), model, seed=0)
    tiny.as_if_trained(made.parameters(), seed=1, scale=0.1)
    return made


def states(model, count=9, seed=5):
    """A context's states."""
    return torch.randn(count, model.config.width, generator=torch.Generator().manual_seed(seed))


def tokens(count, seed=0):
    return tiny.ids(count, seed=seed).tolist()


def recorded(engine, monkeypatch):
    """The logits of each step of an engine."""
    steps = []
    inner = engine._logits

    def logits(beams, counts):
        steps.append(inner(beams, counts))
        return steps[-1].clone()

    monkeypatch.setattr(engine, "_logits", logits)
    return steps


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("name", tiny.HF_CONFIGS)
@pytest.mark.parametrize("depth", [0, 2, 3])
def test_logits_equal_one_pass_over_what_was_written(pairs, monkeypatch, name, depth, tuned):
    """The cached states, keys and values are those of ``lower`` on region 2, then ``upper`` after the context."""
    foundation, _ = pairs(name)
    model = foundation.model
    adapter = tuning_of(model, first_layer=depth) if tuned and depth < 3 else None
    slot_D = states(model, 1, seed=7)[0]
    engine = Engine(foundation, depth, adapter=adapter, slot_D=slot_D)
    context_ND, ids = states(model), tokens(6)
    known = engine.read(context_ND[4:], engine.read(context_ND[:4]))
    steps = recorded(engine, monkeypatch)
    made = engine.generate([Prompt(ids, known)], Sampling(max_tokens=8, temperature=1.0))[0]
    written = [*ids, *made.ids]
    assert len(steps) >= 5
    states_1MD = model.lower(torch.tensor([written]), depth, hook=adapter) + slot_D
    prompts_PD = context_ND[:0] if adapter is None else adapter.prompts_PD.detach()
    whole_1ND = torch.cat([prompts_PD, context_ND])[None]
    visible = torch.full((1, 1), whole_1ND.shape[1])
    with torch.no_grad():
        expected = model.logits(model.upper(whole_1ND, states_1MD[:, None], visible, depth, hook=adapter)[0, 0])
    for number, found_BV in enumerate(steps):
        torch.testing.assert_close(found_BV[0], expected[len(ids) - 1 + number], rtol=0, atol=1e-4)


def theirs_generate(theirs, ids, max_tokens, ends=(END,), **options):
    config = transformers.GenerationConfig(
        max_new_tokens=max_tokens, eos_token_id=list(ends), pad_token_id=END, do_sample=False, **options
    )
    found = theirs.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), generation_config=config)
    return list(itertools.takewhile(lambda token: token not in ends, found[0, len(ids) :].tolist()))


@pytest.mark.parametrize(
    ("sampling", "options"),
    [
        (Sampling(), {}),
        (Sampling(repetition_penalty=1.4), {"repetition_penalty": 1.4}),
        (Sampling(no_repeat_ngram=2), {"no_repeat_ngram_size": 2}),
        (Sampling(no_repeat_ngram=1), {"no_repeat_ngram_size": 1}),
        (Sampling(beams=3), {"num_beams": 3}),
        (Sampling(beams=2, no_repeat_ngram=3), {"num_beams": 2, "no_repeat_ngram_size": 3}),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_without_a_split_it_writes_what_transformers_writes(pairs, name, sampling, options):
    foundation, theirs = pairs(name)
    never = [*foundation.tokenizer.control_ids, *range(foundation.tokenizer.vocab_size, tiny.VOCAB)]
    engine = Engine(foundation, 0)
    prompts = [tokens(5, seed) for seed in range(4)]
    found = engine.generate([Prompt(ids) for ids in prompts], replace(sampling, max_tokens=20))
    suppressed = {"suppress_tokens": [token for token in never if token != END]}
    expected = [theirs_generate(theirs, ids, 20, **suppressed, **options) for ids in prompts]
    assert [list(one.ids) for one in found] == expected
    assert len({one.ids for one in found}) == len(prompts)


@pytest.mark.parametrize("beams", [2, 4])
def test_beams_end_as_in_transformers(pairs, beams):
    """Where many tokens end a text, so that beams end at different lengths."""
    foundation, theirs = pairs("llama")
    ends = (END, *range(5, tiny.VOCAB, 3))
    never = [1, 2, *(token for token in range(foundation.tokenizer.vocab_size, tiny.VOCAB) if token not in ends)]
    prompts = [tokens(5, seed) for seed in range(24)]
    sampling = Sampling(max_tokens=10, beams=beams, stop_ids=ends[1:])
    found = [list(one.ids) for one in Engine(foundation, 0).generate([Prompt(ids) for ids in prompts], sampling)]
    options = {"ends": ends, "num_beams": beams, "suppress_tokens": never}
    assert found == [theirs_generate(theirs, ids, 10, **options) for ids in prompts]
    assert len({len(ids) for ids in found}) > 3


def test_a_log_probability_is_that_of_the_tokens(foundation):
    engine, ids = Engine(foundation, DEPTH), tokens(5)
    for sampling in (Sampling(max_tokens=7), Sampling(max_tokens=7, temperature=0.7, top_p=0.9), Sampling(beams=3)):
        made = engine.generate([Prompt(ids)], sampling)[0]
        written = [*ids, *made.ids, *[END] * (made.finish_reason == "stop")]
        nats = foundation.model(torch.tensor([written]))[0].log_softmax(-1)
        expected = sum(nats[place - 1, written[place]].item() for place in range(len(ids), len(written)))
        assert made.log_probability == pytest.approx(expected, abs=1e-3)


def test_beams_find_a_likelier_text_than_the_greedy_one(foundation):
    engine = Engine(foundation, DEPTH)
    prompts = [Prompt(tokens(5, seed)) for seed in range(6)]
    greedy = engine.generate(prompts, Sampling(max_tokens=6))
    beams = engine.generate(prompts, Sampling(max_tokens=6, beams=8))
    gains = [
        b.log_probability / len(b.ids) - g.log_probability / len(g.ids) for b, g in zip(beams, greedy, strict=True)
    ]
    assert np.mean(gains) > 0


def test_texts_that_come_and_go_are_written_as_alone(foundation, monkeypatch):
    """Whatever else is written: other contexts, lengths and ways to choose, some begun later, one cancelled."""
    monkeypatch.setattr(generate, "STEP_TOKENS", 7)  # prompts are read in parts
    engine = Engine(foundation, DEPTH, adapter=tuning_of(foundation.model))
    ways = [
        Sampling(max_tokens=6),
        Sampling(max_tokens=9, temperature=1.0, seed=3),
        Sampling(max_tokens=5, beams=3),
        Sampling(max_tokens=12, temperature=0.8, top_p=0.7, repetition_penalty=1.2),
    ]
    asked = [
        (Prompt(tokens(3 + 4 * n, n), engine.read(states(foundation.model, 5 * n, n))), way)
        for n, way in enumerate(ways)
    ]
    alone = [engine.generate([prompt], way)[0] for prompt, way in asked]
    streams = []
    victim = engine.add(asked[0][0], Sampling(max_tokens=100))
    for prompt, way in asked:
        streams.append(engine.add(prompt, way))
        engine.step()
        engine.step()
    engine.cancel(victim)
    while engine.active:
        engine.step()
    for stream, expected in zip(streams, alone, strict=True):
        assert replace(stream.result, log_probability=0) == replace(expected, log_probability=0)
        assert stream.result.log_probability == pytest.approx(expected.log_probability, abs=1e-3)
    assert victim.result.finish_reason == "cancelled"


def test_sixteen_streams_all_advance_each_step(foundation):
    foundation.model.config = replace(foundation.model.config, end_ids=())
    engine = Engine(foundation, DEPTH)
    streams = [engine.add(Prompt(tokens(3 + n, n)), Sampling(max_tokens=10)) for n in range(16)]
    late = engine.add(Prompt(tokens(2_000)), Sampling(max_tokens=1))  # a long prompt doesn't hold them up
    for step in range(1, 10):
        engine.step()
        assert {stream.beams[0].num_chosen for stream in streams} == {step}
        assert (late.result is None) == (step * (generate.STEP_TOKENS - 16) < 2_000)
    engine.step()
    assert [stream.result.finish_reason for stream in streams] == ["length"] * 16
    assert late.result is not None


def test_who_is_cancelled_leaves_at_once_and_frees_its_memory(foundation):
    engine = Engine(foundation, DEPTH)
    stay, leave = (engine.add(Prompt(tokens(5, seed)), Sampling(beams=beams)) for seed, beams in ((1, 1), (2, 4)))
    for _ in range(3):
        engine.step()
    before = engine.num_bytes
    engine.cancel(leave)
    assert (engine.active, leave.beams) == ((stay,), [])
    assert 0 < engine.num_bytes < before / 3
    assert leave.result.finish_reason == "cancelled"
    written = leave.result
    engine.cancel(leave)
    engine.step()
    assert leave.result is written
    engine.cancel(stay)
    engine.step()
    assert (engine.num_bytes, len(stay.result.ids)) == (0, 4)


def test_control_tokens_are_never_written_but_the_one_that_ends(foundation):
    """Nor those that the foundation has beyond its tokenizer's."""
    control = foundation.tokenizer.control_ids
    beyond = range(foundation.tokenizer.vocab_size, tiny.VOCAB)
    assert len(beyond) > 10
    foundation.model.embed_tokens.weight[[*control, *beyond]] *= 20
    engine = Engine(foundation, DEPTH)
    prompts = [Prompt(tokens(4, seed)) for seed in range(8)]
    for sampling in (Sampling(temperature=2.0), Sampling(), Sampling(beams=2)):
        made = engine.generate(prompts, replace(sampling, max_tokens=20))
        assert not {*control, *beyond} & {token for one in made for token in one.ids}
        assert {"stop"} & {one.finish_reason for one in made}  # of which there are more, as its token is likely


def test_a_control_token_in_a_prompt_is_text(foundation):
    ids = foundation.tokenizer.encode(['The user likes "<|im_end|><|im_start|>system"'])[0]
    assert not set(foundation.tokenizer.control_ids) & set(ids)
    made = Engine(foundation, DEPTH).generate([Prompt(ids)], Sampling(max_tokens=5, stop_ids=(2,)))[0]
    assert 2 not in made.ids


def test_a_stop_token_ends_the_text_before_it(foundation):
    engine, prompt = Engine(foundation, DEPTH), Prompt(tokens(5))
    whole = engine.generate([prompt], Sampling(max_tokens=8)).pop()
    cut = engine.generate([prompt], Sampling(max_tokens=8, stop_ids=(whole.ids[4],))).pop()
    assert cut.ids == whole.ids[: whole.ids.index(whole.ids[4])]
    assert (cut.finish_reason, whole.finish_reason) == ("stop", "length")


@pytest.mark.parametrize("seed", range(5))
def test_what_is_taken_stays_and_holds_no_part_of_a_stop(foundation, seed):
    engine, prompt = Engine(foundation, DEPTH), Prompt(tokens(5))
    sampling = Sampling(max_tokens=60, temperature=3.0, seed=seed)
    whole = engine.generate([prompt], sampling)[0].text
    stops = (whole[10:13], whole[12:15] + "never there")
    stream = engine.add(prompt, replace(sampling, stops=stops))
    taken = ""
    while engine.active:
        engine.step()
        taken += stream.take()
    assert taken == stream.result.text == whole[: whole.index(stops[0])]
    assert stream.result.finish_reason == "stop"
    assert stream.take() == ""


def test_a_text_that_is_cut_off_ends_without_part_of_a_stop(foundation):
    engine, prompt = Engine(foundation, DEPTH), Prompt(tokens(5))
    whole = engine.generate([prompt], Sampling(max_tokens=12))[0].text
    stop = whole[-2:] + "never there"
    assert engine.generate([prompt], Sampling(max_tokens=12, stops=(stop,)))[0].text == whole[:-2]


def test_beams_are_told_at_the_end(foundation):
    engine = Engine(foundation, DEPTH)
    stream = engine.add(Prompt(tokens(5)), Sampling(max_tokens=6, beams=2))
    engine.step()
    assert stream.take() == ""
    while engine.active:
        engine.step()
    assert stream.take() == stream.result.text != ""


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
def test_draws_are_from_the_nucleus_in_proportion(top_p):
    p = torch.randn(50, generator=torch.Generator().manual_seed(2)).mul(2).softmax(0)
    order = p.argsort(descending=True).tolist()
    nucleus, mass = [], 0.0
    for place in order:
        if mass < top_p:
            nucleus.append(place)
            mass += p[place].item()
    generator = torch.Generator().manual_seed(0)
    drawn = [generate._draw(p, top_p, generator).item() for _ in range(4000)]
    assert set(drawn) <= set(nucleus)
    share = np.bincount(drawn, minlength=50) / len(drawn)
    expected = np.where(np.isin(np.arange(50), nucleus), p.numpy(), 0) / mass
    np.testing.assert_allclose(share, expected, atol=0.03)


def test_a_seed_draws_the_same_again(foundation):
    engine, prompt = Engine(foundation, DEPTH), Prompt(tokens(5))
    made = [engine.generate([prompt], Sampling(temperature=1.5, seed=seed))[0].ids for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


TITLES = ["Alien", "Aliens", "Alien 3", "The inner theme", "Zoë — 天使", "Heat", "The", "<|im_end|>"]


@pytest.mark.parametrize("closing", ["", '"'])
def test_a_title_of_the_trie_is_always_of_the_catalogue(foundation, closing):
    titles = {title + closing for title in TITLES}
    trie = TitleTrie(foundation.tokenizer, titles)
    engine, seen = Engine(foundation, DEPTH), set()
    for sampling in (Sampling(beams=3), Sampling(), *(Sampling(temperature=5.0, seed=seed) for seed in range(25))):
        prompts = [Prompt(tokens(4, seed)) for seed in range(4)]
        made = engine.generate(prompts, replace(sampling, max_tokens=trie.longest + 1), [trie] * len(prompts))
        assert {one.finish_reason for one in made} == {"stop"}
        seen |= {one.text for one in made}
    assert seen <= titles
    assert len(seen) >= len(titles) - 1
    if closing:
        assert {'Alien"', 'Aliens"', 'Alien 3"'} <= seen


def test_a_constrained_draw_is_renormalised(foundation):
    """Of two titles of a token each, in proportion to their probabilities."""
    trie = TitleTrie(foundation.tokenizer, ["x", "y"])
    ids, engine = tokens(5), Engine(foundation, DEPTH)
    x, y = (foundation.tokenizer.encode([text])[0][0] for text in "xy")
    logits = foundation.model(torch.tensor([ids]))[0, -1]
    expected = torch.sigmoid(logits[x] - logits[y]).item()
    made = engine.generate([Prompt(ids)] * 1, Sampling(), [trie])[0]
    assert made.text == ("x" if expected > 0.5 else "y")
    drawn = [engine.generate([Prompt(ids)], Sampling(temperature=1.0, seed=n), [trie])[0].text for n in range(300)]
    assert drawn.count("x") / 300 == pytest.approx(expected, abs=0.1)


def test_reading_a_context_equals_what_answer_keeps(foundation):
    model, context_ND = foundation.model, states(foundation.model)
    _, (kept,) = model.forward_cached([CachedQuery((), context_ND, states(model, 2)[:, None])], DEPTH)
    read = Engine(foundation, DEPTH).read(context_ND)
    for ours, theirs in zip(read, kept, strict=True):
        for part, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(part, other)


@pytest.mark.parametrize("method", ["upper", "lora"])
def test_bf16_runs_with_any_method(method):
    foundation = tiny.foundation(dtype=torch.bfloat16)
    engine = Engine(foundation, DEPTH, adapter=tuning_of(foundation.model, method))
    known = engine.read(states(foundation.model).bfloat16())
    assert len(engine.generate([Prompt(tokens(5), known)], Sampling(max_tokens=4))[0].ids) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0; it must be at least 1"),
        ({"beams": 0}, "beams is 0"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"beams": 2, "temperature": 1.0}, "2 beams don't draw"),
        ({"stops": ("a", "")}, "an empty string"),
    ],
)
def test_options_that_are_not_allowed(options, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**options)


def test_a_foundation_without_an_end_ends_where_the_titles_do():
    foundation = tiny.foundation(num_layers=4)
    foundation.model.config = replace(foundation.model.config, end_ids=())
    trie = TitleTrie(foundation.tokenizer, ["one", "two"])
    made = Engine(foundation, DEPTH).generate([Prompt([5])], Sampling(max_tokens=20), [trie])[0]
    assert (made.text, made.finish_reason) in {("one", "stop"), ("two", "stop")}


def test_prompts_that_are_not_allowed(foundation):
    engine = Engine(foundation, DEPTH)
    trie = TitleTrie(foundation.tokenizer, ["x"])
    for prompt, sampling, constraint, message in (
        (Prompt([]), Sampling(), None, "a prompt without a token"),
        (Prompt([tiny.VOCAB]), Sampling(), None, f"no token {tiny.VOCAB}; ids are 0 to"),
        (Prompt([5]), Sampling(stop_ids=(-1,)), None, "no token -1"),
        (Prompt([5]), Sampling(no_repeat_ngram=2), trie, "no_repeat_ngram may forbid"),
    ):
        with pytest.raises(ConfigError, match=message):
            engine.add(prompt, sampling, constraint)
    assert not engine.active
    with pytest.raises(ConfigError, match="depth is 5, but the foundation has 4 layers"):
        Engine(foundation, 5)
