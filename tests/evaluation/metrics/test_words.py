import doctest
import random
import sys
from itertools import combinations
from math import exp, sqrt

import pytest

from m6rec.errors import ConfigError, DataError, ExtraError
from m6rec.evaluation.metrics import words

TEXTS = ["the sound is great", "the case is nice", "the sound is great", "sound and case rock"]
FEATURES = {"sound", "case", "price", "sound quality"}


def same(first, second):
    return first == second


def test_worked_examples():
    failed, attempted = doctest.testmod(words)
    assert attempted == 11
    assert failed == 0


def test_bleu_of_hand_worked_cases():
    assert words.bleu(["a b c d"], ["a b c d"]) == pytest.approx(100)
    # Counts are clipped: "a" holds once; the text is shorter than its reference by a word.
    assert words.bleu(["a a b"], ["a b c d"], n=1) == pytest.approx(100 * 2 / 3 * exp(1 - 4 / 3))
    # Over the corpus: 3 of 4 words, 1 of 2 pairs.
    assert words.bleu(["a b", "c x"], ["a b", "c d"], n=2) == pytest.approx(100 * sqrt(3 / 4 * 1 / 2))
    assert words.bleu(["a b c"], ["c b a"], n=2) == 0  # no smoothing


@pytest.mark.parametrize(("kind", "expected"), [("1", 6 / 8), ("2", 2 / 6), ("L", 4 / 8)])
def test_rouge_of_a_hand_worked_case(kind, expected):
    """Of four words each, a c d are shared; of three pairs, c d; a d and c d are the longest in order."""
    assert words.rouge(["a x c d"], ["c d y a"], kind) == pytest.approx(100 * expected)


def test_rouge_is_the_mean_over_texts():
    assert words.rouge(["a b", "c"], ["a b", "d"], "1") == pytest.approx(100 * 1 / 2)


def test_distinct():
    assert words.distinct(["a a b", "A b"], n=1) == 2 / 5
    assert words.distinct(["a a b", "a b", "c"], n=2) == 2 / 3


def test_features_are_whole_words_in_any_case():
    found = words.features_in("Sound-quality? SOUND quality, soundtrack.", FEATURES)
    assert found == {"sound", "sound quality"}
    assert words.features_in("", FEATURES) == frozenset()


def test_peters_metrics_of_a_hand_worked_case():
    assert words.unique_sentence_ratio(TEXTS) == 3 / 4
    assert words.feature_matching_ratio(TEXTS, ["sound", "sound", "price", "case"]) == 2 / 4
    assert words.feature_coverage_ratio(TEXTS, FEATURES) == 2 / 4
    # Pairs that share: three on sound, one on case, of six.
    assert words.feature_diversity(TEXTS, FEATURES) == 4 / 6


def test_diversity_equals_a_loop_over_pairs():
    rng = random.Random(0)
    vocabulary = "abcdefgh"
    texts = [" ".join(rng.choices(vocabulary, k=4)) for _ in range(30)]
    features = set("abcd")
    shared = [len(set(one.split()) & set(two.split()) & features) for one, two in combinations(texts, 2)]
    assert words.feature_diversity(texts, features) == pytest.approx(sum(shared) / len(shared))


def test_statements_are_counted_over_all_texts():
    said, known = [["a", "b", "c"], [], ["d"]], [["a"], ["x"], ["d", "e"]]
    assert words.statement_precision(said, known, same) == 2 / 4
    assert words.statement_recall(said, known, same) == 2 / 4

    def begins(statement, other):  # what is said and what is known keep their places
        return other.startswith(statement)

    assert words.statement_precision([["so"]], [["soft"]], begins) == 1
    assert words.statement_recall([["so"]], [["soft", "red"]], begins) == 1 / 2
    assert words.statement_recall([["soft"]], [["so"]], begins) == 0


def test_catalogue_validity():
    assert words.catalogue_validity(["The  MATRIX", "Heat", "Heat 2"], iter(["the matrix", "Heat"])) == 2 / 3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: words.bleu([], []), DataError, "no texts"),
        (lambda: words.bleu(["a"], []), DataError, "1 texts and 0 references"),
        (lambda: words.bleu(["a"], ["a"], n=5), ConfigError, "n is 5"),
        (lambda: words.rouge(["a"], ["a", "b"]), DataError, "1 texts and 2 references"),
        (lambda: words.rouge(["a"], ["a"], "3"), ConfigError, "kind is '3'"),  # type: ignore[arg-type]
        (lambda: words.distinct(["a"], 2), DataError, "has 2 words"),
        (lambda: words.distinct(["a"], 0), ConfigError, "n is 0"),
        (lambda: words.unique_sentence_ratio([]), DataError, "no texts"),
        (lambda: words.feature_matching_ratio(["a"], []), DataError, "0 features"),
        (lambda: words.feature_coverage_ratio(["a"], []), DataError, "no features"),
        (lambda: words.feature_diversity(["a"], ["a"]), DataError, "at least two"),
        (lambda: words.statement_precision([[]], [["a"]], same), DataError, "no statement"),
        (lambda: words.catalogue_validity([], ["a"]), DataError, "no texts"),
    ],
)
def test_errors_say_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("module", "metric"), [("sacrebleu.metrics.bleu", words.bleu), ("rouge_score.rouge_scorer", words.rouge)]
)
def test_an_absent_library_is_named_with_its_install_line(monkeypatch, module, metric):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ExtraError, match=r"pip install 'm6rec\[text\]'"):
        metric(["a"], ["a"])
