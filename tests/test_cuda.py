"""On a GPU as on the CPU: the same states, scores, vectors and texts, and runs that either goes on with.

Both compute in fp32 here, so what differs is the order of sums.
"""

import numpy as np
import pytest
import torch

from m6rec import zero_shot
from m6rec.foundation import likelihood
from m6rec.foundation.generate import Sampling
from m6rec.foundation.states import StateCache, StatesConfig
from m6rec.readouts import GenerateModel, ScoreModel, TaskModelConfig
from m6rec.serving.kv_cache_pool import KVCachePool
from m6rec.tasks.diary import Diary
from m6rec.training import CHECKPOINT
from tests import test_training, tiny
from tests.foundation.test_likelihood import ROWS as PROMPTS
from tests.readouts import test_generate, test_score

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible")

CPU, CUDA = "cpu", "cuda"
METHODS = ["option-adapter", "lora", "upper", "prompt"]
SPLITS = [{"depth": 2, "keep": 1}, {"depth": 3, "keep": 2}, {"depth": 0, "keep": 0}]


@pytest.fixture(autouse=True)
def full_precision():
    """Products in fp32 proper, not in TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def on(device, foundation=None):
    foundation = foundation or tiny.foundation()
    foundation.model.to(device)
    return foundation


def both(make, **options):
    """The same tuning on either device, as if it had been trained."""
    return [made_on(device, make, **options) for device in (CPU, CUDA)]


def made_on(device, make, **options):
    made = make(foundation=on(device), used=False, **options)
    tiny.as_if_trained(made.adapter.parameters())
    return made


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("split", [*SPLITS, {"depth": 0, "keep": 0, "bidirectional": True}], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_scores_are_those_of_the_cpu(method, split):
    method = "full" if method == "upper" and not split["depth"] else method
    here, there = both(test_score.make, method=method, **split)
    rows = test_score.ROWS["like"]
    close(there.scores(rows), here.scores(rows))
    asked = [(str(number), row.by_timestamp()[-1]) for number, row in enumerate(rows)]
    turns = [KVCachePool(tuned) for tuned in (here, there)]
    for _ in range(2):  # the second time the user's keys and values are at hand
        expected, found = (of.predict(asked) for of in turns)
        close(np.concatenate(found), np.concatenate(expected))


def test_vectors_are_those_of_the_cpu():
    items = list(test_score.ITEMS.values())
    here, there = (tiny.retrieval(on(device, tiny.foundation()), items, "books") for device in (CPU, CUDA))
    close(there.item_vectors(items), here.item_vectors(items))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("here_first", [True, False])
def test_states_that_one_wrote_are_read_by_the_other(tmp_path, here_first, dtype):
    writes, reads = (CPU, CUDA) if here_first else (CUDA, CPU)
    texts, split = ["the man", "a hat in the rain", "the man in a hat"], StatesConfig(depth=2, keep=2)
    written = StateCache(on(writes, tiny.foundation(dtype=dtype)), split, tmp_path).fetch(texts)
    cache = StateCache(on(reads, tiny.foundation(dtype=dtype)), split, tmp_path)
    read = cache.fetch(texts)
    assert (cache.hits, cache.misses) == (len(texts), 0)
    assert read.tokens_TD.device.type == reads
    assert torch.equal(read.tokens_TD.cpu(), written.tokens_TD.cpu())


def stop(step, total, loss):
    """Progress of a training that is interrupted on its way."""
    if step == 8:
        raise InterruptedError


def tune(monkeypatch, task, folder=None, progress=lambda *_: None, *, there=True):
    monkeypatch.setattr(tiny, "foundation", lambda: on(CUDA if there else CPU, FOUNDATION()))
    return test_training.tune_board(task, "upper", folder=folder, progress=progress, **SIZES)


FOUNDATION = tiny.foundation
SIZES = {"epochs": 2, "checkpoint_steps": 3, "batch_tokens": 60}


@pytest.mark.parametrize("task", ["tests.test_training:SIGNED", "like"])
def test_a_tuning_learns_goes_on_after_a_stop_and_is_loaded_on_the_cpu(monkeypatch, tmp_path, task):
    with pytest.raises(InterruptedError):
        tune(monkeypatch, task, tmp_path, stop)
    assert (tmp_path / CHECKPOINT).is_file()
    steps = []
    resumed, history = tune(monkeypatch, task, tmp_path, lambda step, *_: steps.append(step))
    whole, expected = tune(monkeypatch, task)
    assert steps[0] == 7
    assert history.losses == pytest.approx(expected.losses, rel=1e-3)
    assert np.mean(history.losses[-5:]) < np.mean(history.losses[:5])
    again = ScoreModel.load(tmp_path, on(CPU, FOUNDATION()))
    rows = [row.only(row.labels >= 0) for row in test_training.board(task, 1, 20)]
    close(again.scores(rows), resumed.scores(rows))
    np.testing.assert_allclose(whole.scores(rows), resumed.scores(rows), rtol=0.02, atol=0.01)


def test_a_run_that_began_on_the_cpu_goes_on(monkeypatch, tmp_path):
    with pytest.raises(InterruptedError):
        tune(monkeypatch, "like", tmp_path, stop, there=False)
    steps = []
    _, history = tune(monkeypatch, "like", tmp_path, lambda step, *_: steps.append(step))
    _, expected = tune(monkeypatch, "like", there=False)
    assert steps[0] == 7
    assert history.losses == pytest.approx(expected.losses, rel=1e-2)


def writer_on(device, method, folder=None, **split):
    base = on(device, test_generate.foundation())
    if folder is not None:
        return GenerateModel.load(folder, base)
    config = TaskModelConfig(task="explain", domain="generic", foundation="tiny", method=method, **split)
    return GenerateModel.create(config, base)


@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_texts_are_those_of_the_cpu(tmp_path, method, split):
    method = "full" if method == "upper" and not split["depth"] else method
    there = writer_on(CUDA, method, **split)
    with torch.no_grad():
        for parameter in there.adapter.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)).to(CUDA))
    there.save(tmp_path)
    here, drafts = writer_on(CPU, method, tmp_path), test_generate.DRAFTS
    (nats, counts), (expected, numbers) = there.nats(drafts), here.nats(drafts)
    close(nats, expected)
    assert counts.tolist() == numbers.tolist()
    for sampling in (
        Sampling(max_tokens=12),
        Sampling(max_tokens=12, temperature=1.0, top_p=0.9, seed=3),
        Sampling(max_tokens=8, beams=3, repetition_penalty=1.2),
    ):
        assert [one.ids for one in there.write(drafts, sampling)] == [one.ids for one in here.write(drafts, sampling)]


def test_texts_are_learned(monkeypatch, tmp_path):
    monkeypatch.setattr(tiny, "foundation", lambda: on(CUDA, FOUNDATION()))
    writer, history = test_training.tune_diaries(folder=tmp_path, epochs=2, batch_tokens=60)
    assert np.mean(history.losses[-5:]) < 0.5 * np.mean(history.losses[:3])
    again = GenerateModel.load(tmp_path, test_training.can_end(on(CPU, FOUNDATION())))
    drafts = test_training.diaries(1, 12)
    close(again.nats(drafts)[0], writer.nats(drafts)[0])


def test_likelihoods_are_those_of_the_cpu():
    here, there = on(CPU), on(CUDA)
    close(likelihood.scores(there, PROMPTS), likelihood.scores(here, PROMPTS))
    config = zero_shot.ZeroShotConfig(answers=("n", "y"))
    diaries = [Diary((("\nHeat, liked by 50%:", 1), ("\nAlien, liked by 75%:", 0)), (4, 9), 1)] * 4
    fitted = [zero_shot.few_shot(of, diaries, config) for of in (here, there)]
    found = [
        zero_shot.log_odds(of, zero_shot.read(of, diaries, config), one)
        for of, one in zip((here, there), fitted, strict=True)
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-3)
