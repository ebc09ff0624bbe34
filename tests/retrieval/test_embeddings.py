import numpy as np
import pytest

from m6rec.errors import AssetError, DataError
from m6rec.retrieval import embeddings
from m6rec.retrieval.embeddings import FILE, Embeddings, Head, Whitening, load, unit, user_vectors

RANDOM = np.random.default_rng(0)
WIDTH = 24


def states(count, *, seed=0):
    """States as a language model makes them: a few directions are ten times wider than the others."""
    random = np.random.default_rng(seed)
    scale_D = np.r_[10 * np.ones(2), np.ones(WIDTH - 2)]
    mixing_DD = np.linalg.qr(np.random.default_rng(9).standard_normal((WIDTH, WIDTH)))[0]
    return (random.standard_normal((count, WIDTH)) * scale_D @ mixing_DD + 5).astype(np.float32)


def trained(count=30):
    """Embeddings with a head and residuals that are not nothing."""
    head = Head(*(RANDOM.standard_normal(shape).astype(np.float32) for shape in ((WIDTH, 8), (WIDTH, 6), 6, (6, 8))))
    residual_IE = RANDOM.standard_normal((count, 8)).astype(np.float32)
    return Embeddings(Whitening.fit(states(500)), head, {f"i{n}": n for n in range(count)}, residual_IE, 0.7)


def test_whitened_states_have_mean_zero_and_covariance_one():
    states_ID = states(20_000)
    whitening = Whitening.fit(states_ID)
    whitened_ID = (states_ID - whitening.mean_D) @ whitening.map_DD
    np.testing.assert_allclose(whitened_ID.mean(0), 0, atol=0.01)
    np.testing.assert_allclose(np.cov(whitened_ID.T), np.eye(WIDTH), atol=0.05)


def test_a_whitened_state_has_the_length_that_a_head_takes():
    states_ID = states(100)
    np.testing.assert_allclose(np.linalg.norm(Whitening.fit(states_ID)(states_ID), axis=1), WIDTH**0.5, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2, WIDTH // 2])
def test_fewer_items_than_dimensions_are_whitened_with_bounds(count):
    whitening = Whitening.fit(states(count))
    widest = np.linalg.svd(whitening.map_DD, compute_uv=False)
    assert np.isfinite(widest).all()
    assert widest[0] <= 1e4 * widest[-1]
    # A new item isn't blown up by directions that the catalogue says nothing of.
    new_ID = (states(50, seed=1) - whitening.mean_D) @ whitening.map_DD
    assert np.linalg.norm(new_ID, axis=1).max() < 100 * WIDTH**0.5


def test_equal_states_are_whitened_to_nothing():
    states_ID = np.ones((5, WIDTH), np.float32)
    assert not Whitening.fit(states_ID)(states_ID).any()


@pytest.mark.parametrize("states_ID", [states(0), np.full((3, WIDTH), np.nan, np.float32)])
def test_states_that_cannot_be_whitened_are_refused(states_ID):
    with pytest.raises(DataError, match="whitening needs items with finite states"):
        Whitening.fit(states_ID)


def test_vectors_of_the_untrained_head_are_whitened_unit_states():
    states_ID = states(40)
    made = Embeddings.untrained(states_ID, WIDTH, decay=0.8)
    wanted_ID = unit(made.whitening(states_ID))
    np.testing.assert_allclose(made.item_vectors([f"i{n}" for n in range(40)], states_ID), wanted_ID, atol=1e-6)


def test_a_vector_depends_on_its_own_item_alone(monkeypatch):
    monkeypatch.setattr(embeddings, "_ROWS_AT_ONCE", 7)
    made, ids, states_ID = trained(), [f"i{n}" for n in range(20)], states(20)
    together = made.item_vectors(ids, states_ID)
    alone = np.concatenate([made.item_vectors([ids[n]], states_ID[n : n + 1]) for n in range(20)])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)


def test_the_residual_of_a_new_item_is_zero():
    made, states_ID = trained(), states(1)
    assert not np.allclose(made.item_vectors(["i3"], states_ID), made.item_vectors(["new"], states_ID))
    text = unit(made.head(made.whitening(states_ID)))
    np.testing.assert_allclose(made.item_vectors(["new"], states_ID), text, atol=1e-6)


def test_a_user_is_the_decayed_sum_of_their_likes():
    vectors_IE = unit(RANDOM.standard_normal((5, 8)).astype(np.float32))
    wanted_E = vectors_IE[3] + 0.5 * vectors_IE[1] + 0.25 * vectors_IE[4]
    made_UE = user_vectors(vectors_IE, [np.array([4, 3, 1, 3]), np.array([], np.int64)], decay=0.5)
    np.testing.assert_allclose(made_UE[0], wanted_E / np.linalg.norm(wanted_E), rtol=1e-5)
    assert not made_UE[1].any()


def test_what_is_loaded_is_what_was_saved(tmp_path):
    made, ids, states_ID = trained(), ["i2", "new"], states(2)
    made.save(tmp_path)
    again = load(tmp_path)
    np.testing.assert_array_equal(made.item_vectors(ids, states_ID), again.item_vectors(ids, states_ID))
    assert again.decay == made.decay
    assert again.digest() == made.digest()


def test_the_digest_tells_any_change():
    made = trained()
    changed = Embeddings(made.whitening, made.head, made.residuals, made.residual_IE * 2, made.decay)
    slower = Embeddings(made.whitening, made.head, made.residuals, made.residual_IE, 0.9)
    assert len({made.digest(), changed.digest(), slower.digest()}) == 3


def test_a_damaged_file_is_refused(tmp_path):
    trained().save(tmp_path)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-10])
    with pytest.raises(AssetError, match="holds no readable embeddings"):
        load(tmp_path)
