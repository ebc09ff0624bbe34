"""Whether a generated sentence says no more than its evidence: the gate between a model's words and a reader.

The evidence is a sentence of ours. What comes from data (titles, categories) stands in double quotes there, which no
title can close (``text.verbalise.quote``), and so it must in what is checked: a quoted part is known or it is not, and
its words say nothing outside the quotes. A title that reads like an order is thus never more than a name.

The gate is strict, as a template is always at hand: it refuses much that is true, and must not let through what is not.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from m6rec.language import safety

MAX_WORDS = 40
"""Of a sentence, quoted parts not counted."""
BLOCKED = safety.BLOCKED | set(
    "assistant system prompt instruction instructions ignore disregard password http https www com kill die nazi"
    " nazis".split()
)
"""Words that no sentence to a user holds outside quotes, and no quoted review at all."""

_QUOTED = re.compile(r'"([^"]*)"')
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*%?(?: (?:out )?of (?:the |its |their )?\d+(?:[.,]\d+)*)?")
_STRANGE = re.compile(r"[^\w\s.,;:!()'’%-]")
_CLAUSE = re.compile(r"[.,;:!()]|\bbut\b")
_ADDRESS = re.compile(r"@|://|www\.|\d{5}", re.IGNORECASE)
# What is to be shown, or what only the user can know.
_FORESTALLS = re.compile(
    r"\byou (?:\w+ )?(?:liked?|loved?|enjoy(?:ed)?|rated|saw|watched|bought|read|had) (?:it|this)\b"
)
_NEGATIONS = frozenset("not no never without hardly nor neither none nothing nobody cannot".split())
_FUNCTION = frozenset(
    "a an the this that these those it its is are was were be been being has have had do does did and also too as who"
    " which because since with of by to in for on at from about".split()
)
# Any of a line may stand for any other of it.
_SAME = {
    word: line.split()[0]
    for line in (
        "people viewer user other",
        "reviewer review",
        "category genre kind",
        "like enjoy",
        "praise commend",
    )
    for word in line.split()
}
_NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()
_NUMBER_WORD = re.compile(rf"\b(?:{'|'.join(_NUMBERS)})\b")


def unsupported_claim(sentence: str, evidence: str, names: Collection[str] = ()) -> str | None:
    """Why a sentence mustn't be said on this evidence; None where it may.

    >>> evidence = 'You liked 4 of 5 movies of the category "Sci-Fi", such as "Alien".'
    >>> unsupported_claim('you liked 4 of 5 movies of the genre "Sci-Fi"', evidence)
    >>> unsupported_claim('you liked 5 of 5 movies of the category "Sci-Fi"', evidence)
    'the number 5 of 5 is not in the evidence'

    Args:
        sentence: What was generated.
        evidence: What it may say; what comes from data in double quotes.
        names: Further names that it may quote, such as those of the item that it is about.
    """
    known = {name.casefold() for name in (*_QUOTED.findall(evidence), *names)}
    for name in _QUOTED.findall(sentence):
        if not known.intersection((name.casefold(), name.casefold().rstrip(",."))):  # a comma may stand inside quotes
            return f"the name {name[:60]!r} is not in the evidence"
    said, given = _outside_quotes(sentence), _outside_quotes(evidence)
    if strange := _STRANGE.search(said):
        return f"the character {strange.group()!r} has no place in a sentence"
    words = _WORD.findall(said)
    if len(words) > MAX_WORDS:
        return f"{len(words)} words are too many"
    if blocked := BLOCKED.intersection(words):
        return f"the word {min(blocked)!r} is blocked"
    numbers = _NUMBER.findall(given)
    for number in _NUMBER.findall(said):
        if number not in numbers and not (number.endswith("%") and any(n.startswith(number) for n in numbers)):
            return f"the number {number} is not in the evidence"
    if _FORESTALLS.search(said) and not _FORESTALLS.search(given):
        return "it says that the user likes the item already"
    claims, allowed = _claims(said), _claims(given)
    for (stem, negated), word in claims.items():
        if (stem, negated) not in allowed and (stem, not negated) in allowed:
            return f"the word {word!r} is {'' if negated else 'not '}negated, unlike in the evidence"
    further = [word for claim, word in claims.items() if claim not in allowed]
    if len(further) == len(claims):
        return "it says nothing of the evidence"
    if further:  # one word more is enough for a false claim
        return f"the word {further[0]!r} is not in the evidence"
    return None


def harmless(text: str) -> bool:
    """Whether a stranger's text may be quoted to a user: no blocked word, no address or long number in it."""
    return not BLOCKED.intersection(_WORD.findall(text.lower())) and not _ADDRESS.search(text)


def _outside_quotes(text: str) -> str:
    """The text in small letters, its quoted parts taken out, its numbers as digits."""
    text = _QUOTED.sub(" ", text).lower().replace("n't", " not").replace("n’t", " not").replace(" percent", "%")
    return " ".join(_NUMBER_WORD.sub(lambda word: str(1 + _NUMBERS.index(word.group())), text).split())


def _claims(text: str) -> dict[tuple[str, bool], str]:
    """The content words by their stems and by whether each follows a negation in its clause."""
    claims = {}
    for clause in _CLAUSE.split(text):
        negated = False
        for word in _WORD.findall(clause):
            if word in _NEGATIONS:
                negated = not negated
            elif word not in _FUNCTION:
                claims[_stem(word), negated] = word
    return claims


def _stem(word: str) -> str:
    """A word without its commonest endings, or the word that may stand for it: "genres" and "kind" are "category"."""
    return _ending_off(_SAME.get(word) or _SAME.get(_ending_off(word)) or _SAME.get(word.removesuffix("s")) or word)


def _ending_off(word: str) -> str:
    for ending in ("ing", "ed", "es", "s", "e", "d"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word
