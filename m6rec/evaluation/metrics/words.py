"""How good generated texts are: likeness to references, variety, features named, statements that hold.

BLEU and ROUGE are percentages, as papers print them; all else is a share from 0 to 1. A feature is the thing that an
explanation talks about ("sound", "battery life"); USR, FMR, FCR and DIV are PETER's (Li et al., ACL 2021, section 5.2).
"""

import importlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Literal, TypeVar

from m6rec.errors import ConfigError, DataError, ExtraError

Said = TypeVar("Said")
Known = TypeVar("Known")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def bleu(texts: Sequence[str], references: Sequence[str], n: int = 4) -> float:
    """Corpus BLEU-n, 0 to 100, of texts with one reference each (Papineni et al., ACL 2002; by sacrebleu).

    BLEU-n = 100 · brevity · (Π_{m ≤ n} p_m)^(1/n), with p_m the share of m-grams that the reference has too, clipped
    by its counts, and brevity = min(1, exp(1 − reference length / length)). Not smoothed, as in PETER.

    One of four words and one of three pairs are wrong: 100 · √(¾ · ⅔)

    >>> round(bleu(["the sound is great"], ["the sound is good"], n=2), 2)
    70.71

    Raises:
        DataError: There is no text, or there are not as many references.
        ConfigError: ``n`` is not 1 to 4.
        ExtraError: sacrebleu is not installed.
    """
    if n not in (1, 2, 3, 4):
        raise ConfigError(f"n is {n}; BLEU-n is for n of 1 to 4")
    _check_pairs(texts, references, "references")
    scorer = _module("sacrebleu.metrics.bleu").BLEU(max_ngram_order=n, smooth_method="none")
    return float(scorer.corpus_score(list(texts), [list(references)]).score)


def rouge(texts: Sequence[str], references: Sequence[str], kind: Literal["1", "2", "L"] = "1") -> float:
    """Mean ROUGE-1, -2 or -L F1, 0 to 100, of texts with one reference each (Lin 2004; by rouge-score, unstemmed).

    F1 = 100 · 2 P R / (P + R), with P and R the shared words ("1"), pairs ("2") or longest common subsequence ("L") as
    a share of the text's and of the reference's

    Three words are shared, of three and of five: 2 · 1 · ⅗ / (1 + ⅗) = ¾

    >>> round(rouge(["the sound rocks"], ["the sound of it rocks"]), 2)
    75.0

    Raises:
        DataError: There is no text, or there are not as many references.
        ConfigError: ``kind`` is something else.
        ExtraError: rouge-score is not installed.
    """
    if kind not in ("1", "2", "L"):
        raise ConfigError(f"kind is {kind!r}; ROUGE is of kind '1', '2' or 'L'")
    _check_pairs(texts, references, "references")
    name = f"rouge{kind}"
    scorer = _module("rouge_score.rouge_scorer").RougeScorer([name])
    pairs = zip(references, texts, strict=True)
    return 100 * float(sum(scorer.score(*pair)[name].fmeasure for pair in pairs)) / len(texts)


def distinct(texts: Sequence[str], n: int) -> float:
    """Distinct-n: how many of the n-grams of all texts differ (Li et al., NAACL 2016).

    Distinct-n = #{different n-grams} / #{n-grams}

    Of four pairs, "great sound" comes twice:

    >>> distinct(["great sound quality", "Great sound here"], n=2)
    0.75

    Raises:
        DataError: No text has n words.
        ConfigError: ``n`` is below 1.
    """
    if n < 1:
        raise ConfigError(f"n is {n}; it must be at least 1")
    grams = [gram for text in texts for gram in _grams(_words(text), n)]
    if not grams:
        raise DataError(f"none of the {len(texts)} texts has {n} words, so Distinct-{n} is not defined")
    return len(set(grams)) / len(grams)


def unique_sentence_ratio(texts: Sequence[str]) -> float:
    """USR: how many of the texts differ.

    USR = #{different texts} / #{texts}, where texts are equal if their words, split at spaces, are

    >>> unique_sentence_ratio(["great sound", "great  sound", "nice case"]) == 2 / 3
    True

    Raises:
        DataError: There is no text.
    """
    _check_any(texts)
    return len({tuple(text.split()) for text in texts}) / len(texts)


def features_in(text: str, features: Collection[str]) -> frozenset[str]:
    """The features that a text names: whole words, in any case; several words must follow one another.

    >>> sorted(features_in("Battery life, not sound, counts.", {"battery life", "sound", "count"}))
    ['battery life', 'sound']
    """
    return _finder(features)(text)


def feature_matching_ratio(texts: Sequence[str], features: Sequence[str]) -> float:
    """FMR: how many texts name the feature that their reference is about.

    FMR = mean_u [f_u in text_u]

    >>> feature_matching_ratio(["great sound", "great case"], ["sound", "price"])
    0.5

    Args:
        texts: The generated texts.
        features: The feature of each text's reference.

    Raises:
        DataError: There is no text, or there are not as many features.
    """
    _check_pairs(texts, features, "features")
    return sum(bool(features_in(*pair)) for pair in zip(texts, ([f] for f in features), strict=True)) / len(texts)


def feature_coverage_ratio(texts: Sequence[str], features: Collection[str]) -> float:
    """FCR: how many of all features some text names.

    FCR = #{different features in the texts} / #{features}

    >>> feature_coverage_ratio(["great sound", "sound and case"], {"sound", "case", "price", "strap"})
    0.5

    Args:
        texts: The generated texts.
        features: All features of the data set.

    Raises:
        DataError: There is no text or no feature.
    """
    _check_any(texts)
    if not features:
        raise DataError("there are no features; give those of the data set")
    found = set[str]().union(*map(_finder(features), texts))
    return len(found) / len({feature.lower() for feature in features})


def feature_diversity(texts: Sequence[str], features: Collection[str]) -> float:
    """DIV: how many features two texts share on average; lower is more diverse.

    DIV = Σ_{u < v} |F_u ∩ F_v| / (N (N − 1) / 2), with F_u the features in text u

    Of three pairs of texts, one shares "sound":

    >>> feature_diversity(["great sound", "sound and case", "nice"], {"sound", "case"}) == 1 / 3
    True

    Raises:
        DataError: There are fewer than two texts.
    """
    if len(texts) < 2:
        raise DataError(f"there are {len(texts)} texts; DIV compares pairs, so give at least two")
    naming = Counter(feature for found in map(_finder(features), texts) for feature in found)
    pairs_sharing = sum(count * (count - 1) for count in naming.values())  # twice, like the pairs below
    return pairs_sharing / (len(texts) * (len(texts) - 1))


def statement_precision(
    said: Sequence[Collection[Said]], known: Sequence[Collection[Known]], matches: Callable[[Said, Known], bool]
) -> float:
    """How many of the statements made are backed by what is known (the review, the evidence).

    precision = #{statements of all texts that match a known one of the same text} / #{statements}

    >>> statement_precision([["soft", "red"], ["warm"]], [["soft"], ["warm", "long"]], lambda a, b: a == b) == 2 / 3
    True

    Args:
        said: The statements of each text.
        known: The statements known to hold for each text.
        matches: Whether a statement is backed by a known one.

    Raises:
        DataError: Lengths differ, or no text makes a statement.
    """
    _check_pairs(said, known, "sets of known statements")
    backed = [
        any(matches(statement, other) for other in others)
        for statements, others in zip(said, known, strict=True)
        for statement in statements
    ]
    if not backed:
        raise DataError(f"there is no statement in any of the {len(said)} texts, so no share of them is defined")
    return sum(backed) / len(backed)


def statement_recall(
    said: Sequence[Collection[Said]], known: Sequence[Collection[Known]], matches: Callable[[Said, Known], bool]
) -> float:
    """How many of the known statements are made.

    recall = #{known statements that match one made in the same text} / #{known statements}

    >>> statement_recall([["soft", "red"], []], [["soft"], ["warm", "long"]], lambda a, b: a == b) == 1 / 3
    True

    Raises:
        DataError: Lengths differ, or nothing is known of any text.
    """
    return statement_precision(known, said, lambda statement, made: matches(made, statement))


def catalogue_validity(titles: Sequence[str], catalogue: Iterable[str]) -> float:
    """How many of the named titles exist, whatever their case and spacing.

    >>> catalogue_validity(["the matrix", "The Matrix 9"], ["The Matrix", "Alien"])
    0.5

    Raises:
        DataError: No title is named.
    """
    _check_any(titles)
    known = {" ".join(title.casefold().split()) for title in catalogue}
    return sum(" ".join(title.casefold().split()) in known for title in titles) / len(titles)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _grams(words: Sequence[str], n: int) -> Iterable[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(n)), strict=False)


def _finder(features: Collection[str]) -> Callable[[str], frozenset[str]]:
    """What finds the features of a text; made once for many texts."""
    by_words = {tuple(_words(feature)): feature.lower() for feature in features}
    lengths = {len(words) for words in by_words}

    def find(text: str) -> frozenset[str]:
        words = _words(text)
        return frozenset(by_words[gram] for n in lengths for gram in _grams(words, n) if gram in by_words)

    return find


def _check_any(texts: Sequence[str]) -> None:
    if not texts:
        raise DataError("there are no texts to evaluate; give at least one")


def _check_pairs(texts: Sequence[Any], others: Sequence[Any], what: str) -> None:
    if len(texts) != len(others):
        raise DataError(f"there are {len(texts)} texts and {len(others)} {what}; give one of each")
    _check_any(texts)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExtraError(f"This metric ({name.split('.')[0]})", "text") from error
