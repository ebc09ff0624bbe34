from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from m6rec.evaluation.metrics import ndcg
from m6rec.retrieval.embeddings import Embeddings, unit
from m6rec.retrieval.training import EmbeddingConfig, ItemMatrix, Questions, Softmax, Step, fit

NUM_ITEMS, WIDTH = 120, 24
IDS = [f"i{n}" for n in range(NUM_ITEMS)]
CONFIG = EmbeddingConfig(width=16, hidden=32, epochs=6, users=64, dropout=0.0)


def log(num_users=300, *, seed=0):
    """(states, likes): a state holds an item's taste among noise that is wider, and users like by taste."""
    random = np.random.default_rng(seed)
    taste_IT = random.standard_normal((NUM_ITEMS, 4))
    mixing_TD = np.random.default_rng(7).standard_normal((4, WIDTH))
    states_ID = taste_IT @ mixing_TD + 3 * random.standard_normal((NUM_ITEMS, WIDTH))
    likes = []
    for taste_T in random.standard_normal((num_users, 4)):
        share_I = np.exp(2 * taste_IT @ taste_T)
        likes.append(random.choice(NUM_ITEMS, 6, replace=False, p=share_I / share_I.sum()))
    return states_ID.astype(np.float32), likes


STATES_ID, LIKES = log()
EARLIER = [row[:-1] for row in LIKES]
ASKED = Questions(EARLIER, np.array([row[-1] for row in LIKES]))


def vectors(made):
    return made.item_vectors(IDS, STATES_ID)


@pytest.mark.parametrize("loss", [ItemMatrix(), Softmax()], ids=["item matrix", "softmax"])
@pytest.mark.parametrize("columns", [NUM_ITEMS, 40], ids=["whole catalogue", "drawn"])
def test_training_lowers_the_loss_and_finds_more(loss, columns):
    made, history = fit(IDS, STATES_ID, EARLIER, replace(CONFIG, loss=loss, columns=columns), validation=ASKED)
    assert history.losses[-1] < history.losses[0]
    assert history.validation_scores[history.best_epoch] == max(history.validation_scores)
    untrained = Embeddings.untrained(STATES_ID, 16, made.decay)
    before, after = (ndcg(ASKED.ranks(vectors(one), made.decay), 10) for one in (untrained, made))
    assert after > before + 0.02


def test_a_seed_fixes_the_vectors():
    first, again, other = (fit(IDS, STATES_ID, EARLIER, replace(CONFIG, seed=seed))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(vectors(first), vectors(again))
    assert not np.allclose(vectors(first), vectors(other))


def test_no_epoch_leaves_whitened_states():
    made, _ = fit(IDS, STATES_ID, EARLIER, replace(CONFIG, epochs=0))
    np.testing.assert_allclose(vectors(made), vectors(Embeddings.untrained(STATES_ID, 16, made.decay)), atol=1e-6)
    assert not made.residuals


def test_training_stops_where_validation_falls():
    nonsense = Questions(EARLIER, np.random.default_rng(1).integers(0, NUM_ITEMS, len(EARLIER)))
    _, history = fit(IDS, STATES_ID, EARLIER, replace(CONFIG, epochs=50, patience=2), validation=nonsense)
    assert len(history.losses) < 50
    assert history.best_epoch == int(np.argmax(history.validation_scores))


def test_only_items_of_the_log_have_residuals():
    few = [row for row in EARLIER if not (row < 10).any()]
    made, _ = fit(IDS, STATES_ID, few, replace(CONFIG, columns=40))
    assert not any(f"i{n}" in made.residuals for n in range(10))
    assert made.residuals


def test_a_head_alone_has_no_residuals():
    made, _ = fit(IDS, STATES_ID, EARLIER, replace(CONFIG, residual_rate=0.0))
    assert not made.residuals


@pytest.mark.parametrize("columns", [NUM_ITEMS, 40])
def test_what_nobody_liked_is_no_negative(columns):
    """Else training teaches that texts like those of new items are not liked."""
    new = np.arange(NUM_ITEMS) >= 100
    likes = [row[~new[row]] for row in LIKES]
    seen = set()

    def loss(vectors_KE, step):
        seen.update(map(tuple, vectors_KE.detach().numpy().round(4).tolist()))
        return ItemMatrix()(vectors_KE, step)

    config = replace(CONFIG, loss=loss, columns=columns, epochs=1, learning_rate=0.0, residual_rate=0.0)
    made, _ = fit(IDS, STATES_ID, likes, config)
    rows = {tuple(row): number for number, row in enumerate(vectors(made).round(4).tolist())}
    assert not {rows[row] for row in seen} & set(np.flatnonzero(new))


def test_likes_that_say_nothing_of_each_other_leave_whitened_states():
    made, history = fit(IDS, STATES_ID, [row[:1] for row in LIKES], CONFIG)
    np.testing.assert_array_equal(vectors(made), vectors(Embeddings.untrained(STATES_ID, 16, made.decay)))
    assert history.losses == []


def step(rows, num_columns, log_share=0.0):
    likes_BL = torch.full((len(rows), max(map(len, rows))), -1)
    for line, row in zip(likes_BL, rows, strict=True):
        line[: len(row)] = torch.tensor(row)
    return Step(likes_BL, torch.full((num_columns,), float(log_share)))


def test_the_item_matrix_loss_is_that_of_the_formula():
    vectors_KE = F.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    liked_BK = torch.tensor([[1.0, 0, 1, 0, 0], [0, 1, 0, 1, 1]])
    told_BK = liked_BK @ (vectors_KE @ vectors_KE.T - torch.eye(5))
    unit_told_BK, unit_liked_BK = F.normalize(told_BK, dim=1), F.normalize(liked_BK, dim=1)
    wanted = (unit_told_BK - unit_liked_BK).norm(dim=1).square().mean()
    torch.testing.assert_close(ItemMatrix()(vectors_KE, step([[0, 2], [4, 1, 3]], 5)), wanted)


def test_the_softmax_asks_each_like_after_those_before_it():
    vectors_KE = F.normalize(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    first, second = vectors_KE[2], F.normalize(vectors_KE[0] + 0.5 * vectors_KE[2], dim=0)
    losses = []
    for user_E, target, left_out in ((first, 0, [2, 1]), (second, 1, [0, 2])):
        logits_K = user_E @ vectors_KE.T / 0.1
        logits_K[left_out] = -torch.inf
        losses.append(F.cross_entropy(logits_K, torch.tensor(target)))
    made = Softmax(temperature=0.1, decay=0.5)(vectors_KE, step([[2, 0, 1]], 4))
    torch.testing.assert_close(made, torch.stack(losses).mean())


def test_drawn_columns_stand_for_all_that_is_liked():
    """The mean of sampled sums, corrected by the chance of a column, is the sum over all items that someone liked."""
    config = replace(CONFIG, columns=30, users=20, loss=Softmax())
    from m6rec.retrieval.training import _Batches

    random = np.random.default_rng(0)
    value_I = random.random(NUM_ITEMS) + np.linspace(0, 2, NUM_ITEMS)
    sums = []
    for _ in range(60):
        for columns_K, made in _Batches(EARLIER, NUM_ITEMS, config, random):
            sums.append(float((torch.from_numpy(value_I)[columns_K] / made.log_share_K.exp()).sum()))
    assert np.mean(sums) == pytest.approx(value_I[np.unique(np.concatenate(EARLIER))].sum(), rel=0.02)


def test_ranks_leave_out_what_was_liked_and_what_is_not_asked_for():
    vectors_IE = unit(np.array([[1, 0], [0.9, 0.1], [0.8, 0.2], [0, 1]], np.float32))
    likes, targets = [np.array([0])], np.array([2])
    assert Questions(likes, targets).ranks(vectors_IE, 1.0).tolist() == [2]
    assert Questions(likes, targets, np.array([True, False, True, True])).ranks(vectors_IE, 1.0).tolist() == [1]


def test_a_users_vector_is_of_what_came_before():
    """Likes after the question change nothing of its rank."""
    vectors_IE = unit(np.random.default_rng(0).standard_normal((NUM_ITEMS, 8)).astype(np.float32))
    asked = Questions([LIKES[0][:3], LIKES[0]], np.array([LIKES[0][3], LIKES[0][3]]))
    alone = Questions([LIKES[0][:3]], np.array([LIKES[0][3]]))
    assert asked.ranks(vectors_IE, 0.8)[0] == alone.ranks(vectors_IE, 0.8)[0]
