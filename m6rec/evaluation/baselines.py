"""The classical recommenders that every report of ours stands beside, tuned with equal care.

A recommender here sees a user as the row of items in their history, so users unseen in ``fit`` are
served like the others. ``target_ranks`` turns one into full-ranking ranks, ``pair_scores`` into a
ranker of given (history, candidate) pairs:

    judge = lambda model: ndcg(target_ranks(model, histories, targets, seen), k=10)
    judge = lambda model: auc(labels, pair_scores(model, histories, candidates))
    best = tune(EASEBaseline, GRIDS["EASEBaseline"], fit_matrix, judge)  # on validation data, never on test

Budget: every method with settings gets ``NUM_TRIALS`` of them. Libraries are imported on use.
"""

import importlib
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m6rec.errors import ConfigError, DataError, ExtraError
from m6rec.evaluation.metrics import auc, ranks
from m6rec.retrieval.sources import factorise

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = NDArray[np.floating[Any]]
Settings = Mapping[str, Any]


class Baseline(Protocol):
    """Learns from interactions, then scores every item for any history."""

    def fit(self, interactions: "csr_matrix") -> Self:
        """Learn from [users, items]: 1 where the user liked the item, or a positive weight."""
        ...

    def scores(self, histories: "csr_matrix") -> Floats:
        """Score all items [B, I] for histories [B, I] of any users; higher is better."""
        ...


@dataclass
class Popularity:
    """The number of users of each item, the same for everybody."""

    count_I: Floats = field(init=False, repr=False)

    def fit(self, interactions: "csr_matrix") -> Self:
        """Count the users of each item."""
        self.count_I = np.asarray(interactions.sum(axis=0), dtype=np.float64).ravel()
        return self

    def scores(self, histories: "csr_matrix") -> Floats:
        """Give everybody the counts [B, I]."""
        return np.broadcast_to(self.count_I, histories.shape)


@dataclass
class ItemKNN:
    """Sum of the cosine similarities between the candidate and each item of the history (``implicit``).

    Attributes:
        k: How many nearest neighbours of each item are kept, itself included.
        weighting: Whether a user counts as given, or less the more items they have (``tfidf``).
    """

    k: int = 100
    weighting: Literal["count", "tfidf"] = "count"
    similarity_II: Any = field(init=False, repr=False)

    def fit(self, interactions: "csr_matrix") -> Self:
        """Keep the k nearest neighbours of each item."""
        neighbours = importlib.import_module("implicit.nearest_neighbours")
        if self.weighting not in ("count", "tfidf"):
            raise ConfigError(f"weighting is {self.weighting!r}; allowed are count and tfidf")
        users_IU = interactions.T
        if self.weighting == "tfidf":
            users_IU = neighbours.tfidf_weight(users_IU)
        weighted = neighbours.normalize(users_IU).T.tocsr()
        model = neighbours.ItemItemRecommender(K=self.k)
        model.fit(weighted, show_progress=False)
        self.similarity_II = model.similarity
        return self

    def scores(self, histories: "csr_matrix") -> Floats:
        """Sum the similarities to the items of each history [B, I]."""
        return np.asarray((histories @ self.similarity_II).toarray())


@dataclass
class EASEBaseline:
    """A linear autoencoder with a zero diagonal, in closed form (Steck, WWW 2019, eq. 8): scores = histories · B.

    P = (G + regularisation · 1)⁻¹, where G counts, for each two items, who has both;  B_ij = −P_ij / P_jj for i ≠ j,
    B_jj = 0. Memory and time grow with the square and the cube of the number of items.
    """

    regularisation: float = 300.0
    weight_II: Floats = field(init=False, repr=False)

    def fit(self, interactions: "csr_matrix") -> Self:
        """Solve for the weights in closed form."""
        gram_II = (interactions.T @ interactions).toarray().astype(np.float64)
        precision_II = np.linalg.inv(gram_II + self.regularisation * np.eye(len(gram_II)))
        self.weight_II = precision_II / -np.diag(precision_II)
        np.fill_diagonal(self.weight_II, 0)
        return self

    def scores(self, histories: "csr_matrix") -> Floats:
        """Rebuild each history from its items [B, I]."""
        return np.asarray(histories @ self.weight_II)


@dataclass
class MatrixFactorisation:
    """Implicit-feedback alternating least squares (Hu, Koren & Volinsky, ICDM 2008; ``implicit``).

    A history's user vector is solved for anew, so it needs no place in ``fit``.

    Attributes:
        factors: Width of the vectors.
        regularisation: Weight of their squared length.
        alpha: Confidence of an interaction over that of a missing one, which is 1.
        iterations: Rounds of solving for users, then for items.
        seed: Of the first vectors.
    """

    factors: int = 64
    regularisation: float = 1.0
    alpha: float = 1.0
    iterations: int = 15
    seed: int = 0
    model: Any = field(init=False, repr=False)

    def fit(self, interactions: "csr_matrix") -> Self:
        """Alternate between users and items."""
        choices = self.factors, self.regularisation, self.alpha
        self.model = factorise(interactions, *choices, iterations=self.iterations, seed=self.seed)
        return self

    def scores(self, histories: "csr_matrix") -> Floats:
        """Solve for each history's vector and multiply [B, I]."""
        user_BF = self.model.recalculate_user(np.arange(histories.shape[0]), histories)
        return np.asarray(user_BF @ self.model.item_factors.T)


NUM_TRIALS = 8
GRIDS: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "Popularity": {},
    "ItemKNN": {"weighting": ("count", "tfidf"), "k": (20, 50, 100, 400)},
    "EASEBaseline": {"regularisation": (10, 30, 100, 200, 400, 800, 2000, 5000)},
    "MatrixFactorisation": {"factors": (16, 64), "regularisation": (0.1, 10), "alpha": (1, 10)},
}
"""The settings to try: NUM_TRIALS of each method, or the only one of a method without settings."""


MAX_SCORES = 2**24
"""How many scores are held at once: 128 MB."""


def pair_scores(model: Baseline, histories: "csr_matrix", item_B: ArrayLike) -> Floats:
    """Score one candidate for each history [B]: how such a model ranks impressions.

    Raises:
        DataError: There isn't one item a history, or an item is out of range.
    """
    item_B = _items(item_B, histories)
    chunks = [
        model.scores(histories[rows])[np.arange(rows.stop - rows.start), item_B[rows]] for rows in _chunks(histories)
    ]
    return np.concatenate(chunks)


def target_ranks(
    model: Baseline, histories: "csr_matrix", target_B: ArrayLike, excluded: "csr_matrix"
) -> NDArray[np.float64]:
    """Rank each target among all items [B], as ``metrics.ranks`` does, a chunk of questions at a time.

    Args:
        model: A fitted recommender.
        histories: What the model knows of each user [B, I].
        target_B: Index of the right item of each question.
        excluded: Non-zero where an item may not be recommended [B, I], such as all that the user has
            seen, liked or not.

    Raises:
        DataError: As ``metrics.ranks``.
    """
    target_B = _items(target_B, histories)
    if excluded.shape != histories.shape:
        raise DataError(f"excluded has shape {excluded.shape}; histories have {histories.shape}")
    chunks = [
        ranks(model.scores(histories[rows]), target_B[rows], excluded[rows].toarray() != 0)
        for rows in _chunks(histories)
    ]
    return np.concatenate(chunks)


ModelT = TypeVar("ModelT")
BaselineT = TypeVar("BaselineT", bound=Baseline)


@dataclass(frozen=True, kw_only=True)
class SearchResult(Generic[ModelT]):
    """The best of several trials.

    Attributes:
        model: The fitted winner.
        chosen: Its settings.
        trials: All settings with their value on validation, in the order tried.
    """

    model: ModelT
    chosen: Settings
    trials: tuple[tuple[Settings, float], ...]


def tune(
    factory: Callable[..., BaselineT],
    grid: Mapping[str, Sequence[Any]],
    fit_matrix: "csr_matrix",
    validate: Callable[[BaselineT], float],
) -> SearchResult[BaselineT]:
    """Fit every combination of the grid and keep the one that the judge likes best (the first, if tied).

    Args:
        factory: From settings as keywords to an unfitted recommender.
        grid: The values to try of each setting.
        fit_matrix: What each trial is fitted on [U, I]; nothing from validation or test.
        validate: From a fitted model to its value on validation data; higher is better.
    """
    return _best_of(
        [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())],
        lambda settings: factory(**settings).fit(fit_matrix),
        validate,
    )


Classifier = Callable[[ArrayLike], NDArray[np.float64]]
"""From features [N, F] to the probability of label 1 [N]."""


def fit_lightgbm(
    features_train: ArrayLike,
    labels_train: ArrayLike,
    features_valid: ArrayLike,
    labels_valid: ArrayLike,
    *,
    trials: int = NUM_TRIALS,
    settings: Settings | None = None,
    seed: int = 0,
    num_threads: int = 1,
) -> SearchResult[Classifier]:
    """Gradient-boosted trees on numeric features [N, F] (``lightgbm``), tuned by random search.

    Each trial draws its settings, adds trees until the validation AUC has not risen for 50 of them,
    and is judged by that AUC.

    Args:
        features_train: What the trees are grown on; NaN means missing.
        labels_train: 0 or 1 a row.
        features_valid: What stops the growing and chooses among the trials.
        labels_valid: 0 or 1 a row.
        trials: How many settings to try.
        settings: What was chosen before, to be tried alone.
        seed: Of the settings drawn and of the trees: same seed, same result.
        num_threads: Threads of LightGBM.

    Raises:
        ExtraError: LightGBM is not installed.
        ConfigError: ``trials`` is below 1.
        DataError: Validation labels are all the same.
    """
    if trials < 1:
        raise ConfigError(f"trials is {trials}; it must be at least 1")
    lightgbm = _library("lightgbm")
    generator = np.random.default_rng(seed)
    fixed = {
        "objective": "binary",
        "metric": "auc",
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "feature_pre_filter": False,  # so that min_data_in_leaf may differ between trials
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": num_threads,
        "verbosity": -1,
    }
    train = lightgbm.Dataset(features_train, labels_train, params=fixed, free_raw_data=False)
    valid = train.create_valid(features_valid, labels_valid)

    def fit(settings: Settings) -> Classifier:
        stop = lightgbm.early_stopping(50, verbose=False)
        booster = lightgbm.train({**fixed, **settings}, train, 2000, [valid], callbacks=[stop])
        return lambda features: np.asarray(booster.predict(features), dtype=np.float64)

    return _best_of(
        [settings]
        if settings is not None
        else [
            {
                "num_leaves": int(generator.choice([7, 15, 31])),
                "min_data_in_leaf": int(generator.choice([20, 100, 300])),
                "learning_rate": float(generator.choice([0.03, 0.06])),
                "feature_fraction": float(generator.choice([0.5, 0.7, 1.0])),
                "lambda_l2": float(generator.choice([0.0, 1.0, 10.0])),
            }
            for _ in range(trials)
        ],
        fit,
        lambda classifier: auc(labels_valid, classifier(features_valid), undefined=0.5),
    )


def fit_mlp(features: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> Classifier:
    """``fit_mlp_classes`` of two classes: from features to the probability of the second."""
    network = fit_mlp_classes(features, labels, 2, seed=seed)
    return lambda table: network(table)[:, 1]


def fit_mlp_classes(features: ArrayLike, labels: ArrayLike, num_classes: int, *, seed: int = 0) -> Classifier:
    """A two-layer perceptron on numeric features [N, F] (``sklearn.neural_network``), to probabilities [N, C].

    It is what our own model would be without its language model: as many hidden units as ``tuning.features`` has.

    Raises:
        ExtraError: scikit-learn is not installed.
    """
    network = _library("sklearn.pipeline").make_pipeline(
        _library("sklearn.preprocessing").StandardScaler(),
        _library("sklearn.neural_network").MLPClassifier(
            (128, 128), alpha=1e-3, batch_size=512, learning_rate_init=5e-4, max_iter=8, n_iter_no_change=8,
            random_state=seed,
        ),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that eight passes are no convergence is meant
        network.fit(np.asarray(features), np.asarray(labels))

    def probabilities(table: ArrayLike) -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.zeros((len(np.asarray(table)), num_classes))
        found[:, np.asarray(network[-1].classes_, np.int64)] = network.predict_proba(np.asarray(table))
        return found

    return probabilities


def _best_of(
    candidates: Sequence[Settings], fit: Callable[[Settings], ModelT], validate: Callable[[ModelT], float]
) -> SearchResult[ModelT]:
    trials: list[tuple[Settings, float]] = []
    best: ModelT | None = None
    for settings in candidates:
        model = fit(settings)
        value = validate(model)
        if best is None or value > max(earlier for _, earlier in trials):
            best, chosen = model, settings
        trials.append((settings, value))
    assert best is not None
    return SearchResult(model=best, chosen=chosen, trials=tuple(trials))


def _items(item_B: ArrayLike, histories: "csr_matrix") -> NDArray[np.int64]:
    """One item number a history, checked."""
    num_questions, num_items = histories.shape
    items_B = np.asarray(item_B, dtype=np.int64)
    if items_B.shape != (num_questions,) or not num_questions:
        raise DataError(
            f"items have shape {items_B.shape} for {num_questions} histories; "
            "give one item a history, and at least one history"
        )
    if items_B.min() < 0 or items_B.max() >= num_items:
        raise DataError(f"items go from {items_B.min()} to {items_B.max()}; allowed are 0 to {num_items - 1}")
    return items_B


def _chunks(histories: "csr_matrix") -> Iterator[slice]:
    """Slices of the questions, of MAX_SCORES scores at most."""
    num_questions, num_items = histories.shape
    step = max(1, MAX_SCORES // num_items)
    for start in range(0, num_questions, step):
        yield slice(start, min(start + step, num_questions))


def _library(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ExtraError(f"This baseline ({module.split('.')[0]})", "baselines") from error
