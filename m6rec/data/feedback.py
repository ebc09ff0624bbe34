"""What counts as positive feedback: known kinds of events, and a rule that is given or inferred from the log.

An event says what happened by its ``kind``, by its ``value``, by both or by neither. An event with neither happened,
which is positive: implicit feedback.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import polars as pl

from m6rec.errors import DataError
from m6rec.types import Feedback

KINDS: Mapping[str, Feedback] = MappingProxyType(
    {
        "view": Feedback(None, 0.5, "viewed {}"),
        "click": Feedback(True, 0.7, "clicked {}"),
        "play": Feedback(True, 0.7, "played {}"),
        "save": Feedback(True, 0.8, "saved {}"),
        "cart": Feedback(True, 0.85, "added {} to the cart"),
        "share": Feedback(True, 0.9, "shared {}"),
        "like": Feedback(True, 1.0, "liked {}"),
        "purchase": Feedback(True, 1.0, "bought {}"),
        "rating": Feedback(True, 0.75, "rated {}"),
        "search": Feedback(None, 0.5, "searched {}"),
        "impression": Feedback(False, 0.25, "was shown {}"),
        "skip": Feedback(False, 0.2, "skipped {}"),
        "remove": Feedback(None, 0.4, "took {} out of the cart"),
        "return": Feedback(False, 0.1, "returned {}"),
        "dislike": Feedback(False, 0.0, "disliked {}"),
        "utterance": Feedback(None, 0.5, "said {}"),
        "response": Feedback(None, 0.5, "was told {}"),
    }
)
"""What an event says by its kind alone."""
WITHOUT_ITEM = ("search", "utterance", "response")
"""Kinds whose events need no item: a query, and what the user and whoever recommends say to each other."""

_SAME = {
    "view": "views pageview page_view product_view view_item detail detail_page_view item_view visit pv browse",
    "click": "clicks clk clicked open tap pageclick article_click select_item",
    "play": "plays played watch watched listen listened stream streamed complete completed read finish",
    "save": "saved bookmark favorite favourite fav wishlist add_to_wishlist follow subscribe collect",
    "cart": "addtocart add_to_cart add_cart basket add_to_basket carted",
    "share": "shared repost retweet forward recommend",
    "like": "liked likes upvote thumbs_up thumbsup love loved positive",
    "purchase": "purchased purchases buy bought order ordered transaction checkout pay paid conversion sale download "
    "install reservation booking book",
    "rating": "rate rated ratings review reviewed stars score",
    "search": "searched query search_query",
    "impression": "impressions shown exposure expose exposed display displayed",
    "skip": "skipped dismiss dismissed hide hidden ignore ignored reject rejected no_click",
    "remove": "remove_from_cart removefromcart uncart",
    "return": "returned refund refunded cancel cancelled",
    "dislike": "disliked downvote thumbs_down thumbsdown hate hated negative",
}
_KIND = {word: kind for kind, words in _SAME.items() for word in (kind, *words.split())}


def kind_of(word: str) -> str:
    """The known kind that a log's own word means; the word itself where it is none.

    >>> [kind_of(word) for word in ("addToCart", "PURCHASED", "product-view", "test drive")]
    ['cart', 'purchase', 'view', 'test drive']
    """
    plain = re.sub(r"[\s-]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word.strip())).lower()
    return _KIND.get(plain, _KIND.get(plain.replace("_", ""), word))


_NEGATIVE = tuple(kind for kind, said in KINDS.items() if said.positive is False)
_JUDGED = ("rating", *_NEGATIVE)
"""Kinds whose value says more than that it happened."""
_NEITHER = (*WITHOUT_ITEM, "remove")
"""Kinds that never speak for an item, whatever the rule."""
_DEGREES = ("hated {}", "disliked {}", "was lukewarm about {}", "liked {}", "loved {}")

_TESTS: Mapping[str, Callable[[Any, float], Any]] = {
    ">=": lambda value, number: value >= number,
    "<=": lambda value, number: value <= number,
    "!=": lambda value, number: value != number,
    "==": lambda value, number: value == number,
    ">": lambda value, number: value > number,
    "<": lambda value, number: value < number,
}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which events of a log are positive.

    Attributes:
        kinds: Kinds that are positive, beside "like"; of others, those that ``KINDS`` calls negative are, and the rest
            is neither. Empty where values decide.
        test: How the value of an event that has no kind, or is a rating, is compared: one of >=, >, <=, <, ==, !=; ""
            where every such event is positive, as is one without a value.
        number: What it is compared with.
        low: The value of the least strength.
        high: The value of the greatest.
    """

    kinds: tuple[str, ...] = ()
    test: str = ""
    number: float = 0.0
    low: float = 0.0
    high: float = 1.0

    def positive(self, kind: str, value: float | None) -> bool | None:
        """Whether an event of this kind and value is positive, negative (False) or neither (None)."""
        compared = bool(self.test) and value is not None
        if kind in (*self.kinds, "like") and not (compared and kind == "rating"):
            return True
        if kind in _NEGATIVE and not compared:
            return False
        if kind in _NEITHER or (self.kinds and kind and not (compared and kind in _JUDGED)):
            return None
        return bool(_TESTS[self.test](value, self.number)) if compared else True

    def label(self) -> pl.Expr:
        """``positive`` as an expression over the columns ``kind`` and ``value``: 1, 0 or null."""
        kind, value = pl.col("kind"), pl.col("value")
        compared = pl.lit(bool(self.test)) & value.is_not_null()
        by_kind = pl.lit(bool(self.kinds)) & (kind != "") & ~(compared & kind.is_in(_JUDGED))
        return (
            pl.when(kind.is_in((*self.kinds, "like")) & ~(compared & (kind == "rating")))
            .then(True)
            .when(kind.is_in(_NEGATIVE) & ~compared)
            .then(False)
            .when(kind.is_in(_NEITHER) | by_kind)
            .then(None)
            .when(compared)
            .then(_TESTS[self.test or "=="](value, self.number))
            .otherwise(True)
            .cast(pl.Int8)
        )

    def rating(self, value: float) -> Feedback:
        """What a value says, in words that fit any item."""
        positive = not self.test or bool(_TESTS[self.test](value, self.number))
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.75
        strength = min(max(share, 0.0), 1.0)
        if self.test and self.high - self.low >= 3:
            return Feedback(positive, strength, _DEGREES[math.floor(strength * 4 + 0.5)])
        return Feedback(positive, strength, "chose {}" if positive else "skipped {}")

    def describe(self) -> str:
        """The rule in words.

        >>> Rule(test=">=", number=4).describe()
        'value >= 4'
        >>> Rule(kinds=("click", "purchase")).describe()
        'event in click, purchase'
        >>> Rule().describe()
        'every event'
        """
        by_kind = f"event in {', '.join(self.kinds)}" if self.kinds else ""
        by_value = f"value {self.test} {self.number:g}" if self.test else ""
        return " or ".join(filter(None, (by_kind, by_value))) or "every event"

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` takes."""
        return {**asdict(self), "kinds": list(self.kinds)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Rule:
        """The rule that ``to_json`` wrote. Raises DataError where it is none."""
        try:
            return cls(**{**values, "kinds": tuple(values["kinds"])})
        except (TypeError, KeyError) as error:
            raise DataError(
                f"{values!r} is not a rule of positive feedback ({error}); prepare the log again"
            ) from error


def parse(text: str) -> Rule:
    """A rule as a user writes it: ``rating>=4``, ``event=purchase``, ``event in click,purchase``.

    Raises:
        DataError: It is none of these.
    """
    listed = re.fullmatch(r"\s*\w+\s+in\s+(.+)", text)
    compared = re.fullmatch(r"\s*(\w+)\s*(>=|<=|!=|==|=|>|<)\s*(.+?)\s*", text)
    if listed or (compared and compared[2] in ("=", "==") and _number(compared[3]) is None):
        words = listed[1] if listed else compared[3] if compared else ""
        kinds = tuple(word.strip().strip("'\"") for word in words.strip("()[] ").split(",") if word.strip())
        if kinds:
            return Rule(kinds=tuple(sorted(map(kind_of, kinds))))
    if compared and (number := _number(compared[3])) is not None:
        test = "==" if compared[2] == "=" else compared[2]
        return Rule(test=test, number=number, low=min(0.0, number), high=max(1.0, number))
    raise DataError(
        f"{text!r} doesn't say which events are positive; write rating>=4, event=purchase or event in click,purchase"
    )


def fitted(rule: Rule, events: pl.DataFrame) -> Rule:
    """The rule with the range of the values of a log, which strengths are measured on."""
    values = events["value"].drop_nulls()
    if not len(values):
        return rule
    low, high = float(values.min()), float(values.max())  # type: ignore[arg-type]
    return replace(rule, low=low if low < 0 or high <= 1 else min(low, 1.0), high=max(high, low))


def infer(events: pl.DataFrame) -> tuple[Rule, str]:
    """The rule that fits a log, and why.

    Args:
        events: With the columns ``value`` (f64, null where missing) and ``kind`` (by ``kind_of``, "" where missing).
    """
    kinds = sorted(kind for kind in events["kind"].unique().to_list() if kind)
    by_value, why = _by_values(events["value"].drop_nulls())
    if not set(kinds) - {"rating"} or (len(kinds) == 1 and by_value.test):
        return by_value, why
    said = {kind: KINDS[kind].positive if kind in KINDS else True for kind in kinds}
    positive = [kind for kind in kinds if said[kind]] or [k for k in kinds if said[k] is None and k not in _NEITHER]
    groups = {
        "positive": positive,
        "negative": [kind for kind in kinds if said[kind] is False],
        "neither": [kind for kind in kinds if said[kind] is None and kind not in positive],
    }
    rule = by_value if "rating" in kinds else replace(by_value, test="")
    why = "; ".join(f"{name}: {', '.join(of)}" for name, of in groups.items() if of)
    return replace(rule, kinds=tuple(positive)), f"kinds of events: {why}"


def _by_values(values: pl.Series) -> tuple[Rule, str]:
    distinct = values.unique().sort()
    if not len(distinct):
        return Rule(), "no value: every event is positive (implicit feedback)"
    low, high = float(distinct[0]), float(distinct[-1])
    whole = bool((distinct == distinct.floor()).all())
    halves = bool((distinct * 2 == (distinct * 2).floor()).all())
    if low < 0:
        return Rule(test=">", number=0, low=low, high=high), "values below 0: those above 0 are positive"
    if len(distinct) == 1 and high > 0:
        return Rule(low=0, high=high), f"every value is {high:g}: every event is positive (implicit feedback)"
    if high <= 1:
        number = 0.5 if not whole else 1
        return Rule(test=">=", number=number, low=0, high=1), f"values from 0 to 1: those from {number:g} are positive"
    for top, best, name in ((5, 4.0, "one to five stars"), (10, 7.0, "a scale of ten")):
        if halves and high <= top and (high > top / 2 or len(distinct) > 2):
            return Rule(test=">=", number=best, low=min(low, 1), high=top), f"{name}: those from {best:g} are positive"
    if low == 0:
        return Rule(test=">", number=0, low=0, high=high), "counts or amounts: those above 0 are positive"
    return Rule(low=0, high=high), "counts or amounts: every event is positive (implicit feedback)"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
