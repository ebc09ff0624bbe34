from dataclasses import replace
from math import exp, log

import numpy as np
import pytest
import torch

from m6rec import hooks
from m6rec.adapters import AdapterRouter
from m6rec.domains import domain as domains
from m6rec.errors import AssetError, ConfigError
from m6rec.foundation.attention import Dense
from m6rec.foundation.states import CacheConfig, StateCache
from m6rec.readouts import ScoreModel, TaskModelConfig
from m6rec.readouts.scoring import pair_loss
from m6rec.tasks import task as tasks
from m6rec.tasks.task import build_examples, texts
from m6rec.text.batch import pad
from m6rec.types import SLOTS, Event, Item, User
from tests import tiny

FOUNDATION = tiny.foundation()
BOOKS = domains.named("books")
TITLES = ("Sea", "The long way home", "Ash", "On stone", "He", "Tin men")
ITEMS = {str(n): Item(str(n), title) for n, title in enumerate(TITLES)}
USERS = {"a": User("a", {"age": 30}), "b": User("b"), "c": User("c", {"country": "Peru"})}
LOG = [
    Event("abc"[user], str(item), time, value)
    for time, (user, item, value) in enumerate(
        [(0, 0, 9), (1, 3, 8), (0, 2, 2), (0, 3, 10), (1, 0, 7), (2, 5, 8), (0, 1, 8), (1, 4, 1), (0, 4, 5), (1, 5, 9)]
    )
]


def rows_of(task):
    rows, _ = build_examples(tasks.named(task), LOG, USERS, ITEMS, BOOKS, np.ones(len(LOG), bool))
    return rows


ROWS = {task: rows_of(task) for task in tasks.names("score")}


def make(task="like", *, foundation=FOUNDATION, used=True, seed=0, cache=None, **options):
    """A tuned task, fresh or as if it had been trained."""
    config = TaskModelConfig(task=task, domain="books", foundation="tiny", **{"depth": 2, **options})
    made = ScoreModel.create(config, foundation, cache=cache, seed=seed)
    if used:
        tiny.as_if_trained(made.adapter.parameters(), seed=seed)
    return made


def one_by_one(rows):
    """A row for each question."""
    return [row.only(np.arange(len(row.events)) == n) for row in rows for n in range(len(row.events))]


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


SPLITS = [{"depth": 2, "keep": 1}, {"depth": 3, "keep": 2}, {"depth": 0, "keep": 0}]


@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("task", tasks.names("score"))
def test_one_pass_over_a_life_equals_each_question_alone(task, split):
    tuned = make(task, **split)
    whole = tuned.scores(ROWS[task])
    close(whole, np.concatenate([tuned.scores([row]) for row in one_by_one(ROWS[task])]))
    # They differ, so that equality says something; those of ctr, which has no numbers, by less.
    assert np.ptp(whole, axis=0).max() > (1e-3 if task == "ctr" else 0.01)


@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("task", tasks.names("score"))
def test_single_equals_batch_in_any_order(task, split):
    tuned, rows = make(task, **split), ROWS[task]
    alone = [tuned.scores([row]) for row in rows]
    close(tuned.scores(rows), np.concatenate(alone))
    close(tuned.scores(rows[::-1]), np.concatenate(alone[::-1]))


def test_batches_of_one_row_equal_one_batch():
    tuned, seen = make(), []
    whole = tuned.scores(ROWS["like"])
    tuned.cache = StateCache(FOUNDATION, tuned.cache.config, limits=CacheConfig(batch_tokens=1))
    close(tuned.scores(ROWS["like"], lambda done, total: seen.append((done, total))), whole)
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("prompted", [False, True])
def test_without_a_split_it_is_the_whole_model(bidirectional, prompted):
    """Depth 0 with all tokens kept equals the unsplit model under the same mask (M6-Rec, figure 2)."""
    tuned = make(method="prompt" if prompted else "adapter", depth=0, keep=0, bidirectional=bidirectional)
    model, encode, tuning = FOUNDATION.model, FOUNDATION.tokenizer.encode, tuned.adapter
    for row in one_by_one(ROWS["like"]):
        question = row.question(0)
        hidden = [tuning.prompts_PD]
        for segment in question.context + question.candidate:
            ids_L = torch.tensor(encode([segment.text])[0])
            hidden.append(model.embed(ids_L) + tuning.slots_SD[SLOTS.index(segment.slot)])
        for behaviour, trace in zip(hidden[1 + row.num_profile :], row.event_features, strict=False):
            behaviour[-1] += tuning.encode_events(torch.from_numpy(trace)[None, None])[0, 0]
        hidden_BLD = torch.cat(hidden)[None]
        length = hidden_BLD.shape[1]
        mask_LL = torch.ones(length, length, dtype=torch.bool).tril()
        if bidirectional:
            region = length - sum(map(len, hidden[1 + len(question.context) :]))
            mask_LL[:region, :region] = True
        positions_BL = torch.arange(length)[None]
        hidden_BLD = model.run(hidden_BLD, positions_BL, Dense(positions_BL, mask_LL[None]), hook=tuning)
        expected = tuning.score(model.finish(hidden_BLD)[:, -1], torch.from_numpy(row.features)).softmax(-1)[:, 1]
        close(tuned.scores([row]), expected.detach().numpy())


def test_a_bidirectional_life_is_cut_into_its_moments():
    """A token that sees the whole context must not carry what came after a question into it."""
    tuned, causal = make(bidirectional=True), make()
    rows = ROWS["like"]
    close(tuned.scores(rows), np.concatenate([tuned.scores([row]) for row in one_by_one(rows)]))
    assert np.abs(tuned.scores(rows) - causal.scores(rows)).max() > 1e-3
    states = tuned.cache.fetch(texts(rows))
    with pytest.raises(AssertionError, match=r"Example\.by_timestamp"):
        tuned.read(pad(rows, states.places), states)


@pytest.mark.parametrize("method", hooks.METHODS.names())
def test_every_method_answers_trains_and_comes_back(method, tmp_path):
    tuned, rows = make(method=method, depth=0 if method == "full" else 2), ROWS["like"]
    states = tuned.cache.fetch(texts(rows))
    tuned.loss(pad(rows, states.places), states).backward()
    assert any(parameter.grad.any() for parameter in tuned.adapter.parameters() if parameter.requires_grad)
    tuned.save(tmp_path)
    again = ScoreModel.load(tmp_path, FOUNDATION)
    assert again.config == tuned.config
    np.testing.assert_array_equal(again.scores(rows), tuned.scores(rows))


def test_a_fresh_tuning_answers_as_the_foundation_does():
    """Options start as the embeddings of the answer words, so the untrained score is the model's own."""
    tuned, model = make("ctr", used=False, method="option-adapter"), FOUNDATION.model
    hidden_D = torch.randn(model.config.width, generator=torch.Generator().manual_seed(0))
    no, yes = (
        model.embed_tokens.weight[torch.tensor(ids)].mean(0) for ids in FOUNDATION.tokenizer.encode([" no", " yes"])
    )
    assert torch.equal(tuned.adapter.score(hidden_D[None])[0], torch.stack([no, yes]) @ hidden_D)
    assert tuned.cache.config.depth == 2
    assert make(depth=None).cache.config.depth == FOUNDATION.model.config.num_layers - ScoreModel.UPPER_LAYERS


@pytest.mark.parametrize("others", [("click",), ("rating",), ("click", "rating")], ids=str)
def test_tasks_mixed_in_one_batch_equal_each_alone(others):
    first = make("like", seed=1)
    rest = [make(task, seed=2 + n, cache=first.cache) for n, task in enumerate(others)]
    everyone = [first, *rest]
    rows = [row for tuned in everyone for row in ROWS[tuned.task.name]]
    task_B = [n for n, tuned in enumerate(everyone) for _ in ROWS[tuned.task.name]]
    order = np.random.default_rng(0).permutation(len(rows))
    rows, task_B = [rows[n] for n in order], [task_B[n] for n in order]
    states = first.cache.fetch(texts(rows))
    router = AdapterRouter([tuned.adapter for tuned in everyone], torch.tensor(task_B))
    mixed_BCD = first.upper.read(pad(rows, states.places), states, router)
    for row, task, found_CD in zip(rows, task_B, mixed_BCD, strict=True):
        alone_BCD = everyone[task].read(pad([row], states.places), states)
        torch.testing.assert_close(found_CD[: len(row.events)], alone_BCD[0], rtol=1e-5, atol=1e-5)


def test_ranking_loss_is_the_mean_surprise():
    tuned, rows = make(), ROWS["like"]
    states = tuned.cache.fetch(texts(rows))
    labels = np.concatenate([row.labels for row in rows])
    probability = tuned.scores(rows)
    expected = -np.log(np.where(labels == 1, probability, 1 - probability)).mean()
    assert tuned.loss(pad(rows, states.places), states).item() == pytest.approx(expected, rel=1e-5)


def ranknet(scores, yes, users):
    """The mean over users of the mean surprise that a yes stands above a no."""
    losses = [
        [
            log(1 + exp(no - above))
            for above, liked in zip(scores[users == user], yes[users == user], strict=True)
            for no, disliked in zip(scores[users == user], ~yes[users == user], strict=True)
            if liked and disliked
        ]
        for user in np.unique(users)
    ]
    return np.mean([np.mean(pairs) for pairs in losses if pairs])


def test_pairs_of_a_user_weigh_as_ranknet_and_uauc_say():
    rng = np.random.default_rng(0)
    users = np.array([0, 2, 0, 2, 2, 3, 3, 0, 2])  # nobody is 1, and 3 has no pair
    scores, yes = rng.normal(size=9), np.array([1, 0, 0, 1, 0, 1, 1, 0, 1], bool)
    found = pair_loss(*map(torch.from_numpy, (scores, yes, users)))
    assert found.item() == pytest.approx(ranknet(scores, yes, users))
    assert pair_loss(torch.zeros(2), torch.tensor([True, False]), torch.tensor([0, 1])).item() == 0


def test_a_share_of_the_ranking_loss_is_of_pairs():
    tuned, rows = make(), ROWS["like"]
    states = tuned.cache.fetch(texts(rows))
    probability = tuned.scores(rows)
    yes = np.concatenate([row.labels for row in rows]) == 1
    users = np.repeat(np.arange(len(rows)), [len(row.labels) for row in rows])
    pairs = ranknet(np.log(probability / (1 - probability)), yes, users)
    surprise = -np.log(np.where(yes, probability, 1 - probability)).mean()
    found = tuned.loss(pad(rows, states.places), states, pairwise=0.4)
    assert found.item() == pytest.approx(0.6 * surprise + 0.4 * pairs, rel=1e-5)


def test_a_digest_tells_what_makes_predictions():
    half = tiny.foundation(dtype=torch.bfloat16)
    half.model.id = FOUNDATION.model.id
    plain = make()
    others = [
        make(keep=2),
        make(depth=1),
        ScoreModel(plain.config, half, plain.adapter, plain.cache),
    ]
    assert len({one.digest() for one in (plain, *others)}) == 4


def test_errors(tmp_path):
    with pytest.raises(ConfigError, match="all_layers with depth 2: training can't read cached states"):
        make(all_layers=True)
    assert make(all_layers=True, depth=0).adapter.config.first_layer == 0
    for other in ("retrieve", "design"):
        with pytest.raises(ConfigError, match=f"'{other}' has readout .* but 'score' is wanted; such tasks are like,"):
            make(other)
    with pytest.raises(AssetError, match=r"holds no tuned task .*make one with `m6rec tune --run"):
        ScoreModel.load(tmp_path, FOUNDATION)
    tuned = make()
    tuned.save(tmp_path)
    with pytest.raises(ConfigError, match="belongs to foundation tiny-4-0, but the model given is tiny-4-1"):
        ScoreModel.load(tmp_path, tiny.foundation(seed=1))
    shared = ScoreModel.load(tmp_path, FOUNDATION, tuned.cache)
    assert shared.cache is tuned.cache
    assert ScoreModel.load(tmp_path, FOUNDATION, make(keep=2).cache).cache.config == replace(tuned.cache.config, keep=1)


@pytest.mark.parametrize("layers", [1, 2])
def test_an_exit_is_a_shorter_model(layers):
    made, rows = make(depth=1), ROWS["like"]
    features_QF = torch.from_numpy(np.concatenate([row.features for row in rows]))
    made.adapter.base.network.fit(features_QF)  # else they drown the rest
    left = ScoreModel(made.config, made.foundation, made.adapter, made.cache, exit_after=layers)
    short = tiny.foundation()
    short.model.config = replace(short.model.config, num_layers=1 + layers)
    whole = ScoreModel(made.config, short, made.adapter, made.cache)
    np.testing.assert_array_equal(left.scores(rows), whole.scores(rows))
    assert np.abs(left.scores(rows) - made.scores(rows)).max() > 0.003  # the gate lets half of it through
    (moment,) = one_by_one(rows)[-1:]
    (answer,), _ = left.predict_cached([((), moment)])
    close(answer, left.scores([moment]))
    assert left.digest() != made.digest()


@pytest.mark.parametrize("layers", [0, 4])
def test_an_exit_is_within_the_upper_layers(layers):
    made = make(depth=1)
    with pytest.raises(ConfigError, match=rf"can't exit after {layers} upper layers: the run has 3; give 1 to 3"):
        ScoreModel(made.config, made.foundation, made.adapter, made.cache, exit_after=layers)
