"""Ranges of numbers that a text asks for: years, lengths, prices, and other numbers of the items by their names.

"From the nineties", "between 1990 and 1995", "newer than 2010", "no older than ten years", "under two hours", "at most
$20", "weight below 5". Rules for English: an amount is found first, then what stands right before and after it. What is
negated is turned round where one range can say it ("nothing before 1980"), and else left out ("not from the nineties").
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Literal

Range = tuple[float, float]
Kind = Literal["below", "up_to", "above", "from", "equal"]
YEAR = "year"
STEP = 1e-6
"""How far a number that isn't a year is at least from a bound that is itself excluded."""

MAX_AMOUNTS = 32
"""Amounts that are looked at in one text."""
_REACH = 120
"""Characters before an amount that may say what is meant by it."""

_NUMBERS = {
    name: float(number)
    for number, name in enumerate("one two three four five six seven eight nine ten eleven twelve".split(), 1)
} | {"fifteen": 15.0, "twenty": 20.0, "thirty": 30.0, "forty": 40.0, "fifty": 50.0, "sixty": 60.0, "ninety": 90.0}
_NUMBERS |= {"half an": 0.5, "half a": 0.5, "a couple of": 2.0, "a few": 3.0, "a hundred": 100.0, "an": 1.0, "a": 1.0}
_DECADES = {
    name: 10 * place
    for place, name in enumerate("twenties thirties forties fifties sixties seventies eighties nineties".split(), 2)
} | {"noughties": 0}
_PARTS = {"early": (0, 4), "mid": (3, 6), "late": (5, 9)}
_UNITS = {
    **dict.fromkeys("minutes minute mins min pages page".split(), ("length", 1.0)),
    **dict.fromkeys("hours hour hrs hr h".split(), ("length", 60.0)),
    **dict.fromkeys("dollars dollar euros euro pounds pound bucks buck usd eur gbp".split(), ("price", 1.0)),
}
"""Of a unit the number that it is of, and how much one is."""
_IMPLIED = {"cheaper": "price", "pricier": "price", "dearer": "price", "shorter": "length", "longer": "length"}
"""Of a comparison without a unit the number that it is of."""

_HEAD = re.compile(
    r"(?<!\w)(?:(?P<below>before|under|below|prior\s+to|(?:older|earlier|less|fewer|cheaper|shorter|lighter|smaller|"
    r"lower)\s+than)|(?P<up_to>until|till|up\s+to|at\s+most|max(?:imum)?(?:\s+of)?|within)|"
    r"(?P<above>after|over|above|(?:newer|later|younger|more\s+recent|more|longer|pricier|dearer|heavier|larger|bigger|"
    r"higher|greater)\s+than)|(?P<from>since|at\s+least|min(?:imum)?(?:\s+of)?|starting\s+(?:in|from|with))|"
    r"(?P<between>between)|(?P<equal>from|in|of|around|about|circa))\s*(?:(?:the|years?|about|around|from|in)\s+)*$",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r"\s*(?P<old>(?:old|ago)\b)?\s*(?:(?:(?P<from>(?:on|onwards?)\b|(?:or|and)\s+(?:newer|later|after|younger)\b)|"
    r"(?P<up_to>(?:or|and)\s+(?:older|earlier|before)\b)|(?P<more>\+|(?:or|and)\s+(?:more|longer|over|up|above)\b)|"
    r"(?P<less>(?:or|and)\s+(?:less|fewer|cheaper|shorter|under|below)\b|at\s+most\b))(?!\s+(?:than|the|\W?\d)))?",
    re.IGNORECASE,
)
_TO = re.compile(r"\s*(?P<word>and|to|till|until|through|[-–—])\s*(?:the\s+)?", re.IGNORECASE)
_DATING = re.compile(r"\s+[^\W\d_]{3,}")
"""What a year stands before that says of which it is: "a 1996 drama"."""
_CLAUSE = re.compile(r"[.,;:!?]|\bbut\b", re.IGNORECASE)
_NEGATION = re.compile(
    r"\b(?:(?:no|not|nor|none|nothing|never|cannot|(?:do|does|did|is|are|was|were|wo|ca|could|would|should)n['’]?t)"
    r"(?P<far>(?:\W+\w+){0,6})|(?:without|except|excluding|avoid|skip|hate)(?:\W+\w+)?)\W*$",
    re.IGNORECASE,
)
_OTHER_YEARS = re.compile(r"\b(?:(?P<older>older|earlier)|newer|later|more\s+recent)\b", re.IGNORECASE)
_WISH = re.compile(r"(?:\W+\w+){2,}\W+(?:want|like|love|prefer|need|give|show|recommend|suggest)\b", re.IGNORECASE)
_TURNED: dict[Kind, Kind] = {"below": "from", "up_to": "above", "above": "up_to", "from": "below"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Amount:
    """A number in a text.

    Attributes:
        start: Where it begins.
        end: Where it ends.
        name: What it is of; "" where it doesn't say.
        span: Its least and greatest value.
        form: A year; a decade or the last years, which need no word before them; an age; or any other.
    """

    start: int
    end: int
    name: str
    span: Range
    form: Literal["year", "period", "age", "other"]


def ranges(text: str, latest_year: int, names: Collection[str] = ()) -> dict[str, Range]:
    """The least and the greatest number that is asked for, by the name of the number; both are allowed.

    Args:
        text: What is said, without the titles in it.
        latest_year: Of any item: "the last ten years" end there, and no decade that begins later is meant.
        names: Numbers of the items that are known besides "year", "length" and "price".

    >>> ranges("from the nineties", 2020)
    {'year': (1990, 1999)}
    >>> ranges("newer than 2010, and at most 2 hours", 2020)
    {'year': (2011, inf), 'length': (-inf, 120.0)}
    """
    spans: dict[str, Range] = {}  # in one of several, which are taken as one
    bounds: dict[str, Range] = {}  # within all
    refused: Range | None = None  # years that it is not to be from
    amounts = [*islice(_amounts(text, latest_year, frozenset(names) - {YEAR}), MAX_AMOUNTS)]
    place = end = 0
    while place < len(amounts):
        one, following = amounts[place], amounts[place + 1 : place + 2]
        start = max(end, one.start - _REACH)
        head = _HEAD.search(text[start : one.start])
        start = start + head.start() if head else one.start
        before = text[max(0, start - _REACH) : start]
        negated = _negated(before)
        other = next((two for two in following if _joined(head, text[one.end : two.start])), None)
        name = one.name or (other.name if other else "") or _named(before, head, names)
        tail = _TAIL.match(text, one.end)
        if other is not None and name == (other.name or name):
            if not negated and one.span[0] <= other.span[1]:
                spans[name] = _hull(spans.get(name), (one.span[0], other.span[1]))
            place, end = place + 1, other.end
        elif kind := _kind(one, head, tail) or (one.form == "year" and _DATING.match(text, one.end) and "equal"):
            end = tail.end() if tail else one.end
            if kind == "equal":
                spans |= {} if negated else {name: _hull(spans.get(name), one.span)}
                refused = _hull(refused, one.span) if negated and name == YEAR else refused
            elif name:
                bound = _bound(_TURNED[kind] if negated else kind, one.span, 1 if name == YEAR else STEP)
                bounds[name] = _both(bounds.get(name), bound)
        else:
            end = one.end
        place += 1
    if refused and (way := _OTHER_YEARS.search(text, end)):  # "not from the nineties, anything older"
        bounds[YEAR] = _both(bounds.get(YEAR), _bound("below" if way["older"] else "above", refused, 1))
    found = {name: _both(spans.get(name), bounds.get(name)) for name in {**spans, **bounds}}
    return {name: (least, greatest) for name, (least, greatest) in found.items() if name and least <= greatest}


def _amounts(text: str, latest_year: int, names: frozenset[str]) -> Iterator[_Amount]:
    pattern, units = _vocabulary(names)
    for match in pattern.finditer(text):
        start, end = match.span()
        if match["years"]:
            num = 1.0 if match["last"] and not match["aged"] else _number(match["aged"])
            year = latest_year - num * (10 if match["years"].lower().startswith("decade") else 1)
            form: Literal["age", "period"] = "period" if match["last"] else "age"
            yield _Amount(start=start, end=end, name=YEAR, span=(year, math.inf if match["last"] else year), form=form)
        elif match["unit"]:
            name, scale = units[match["unit"].lower()]
            number = (_number(match["measured"]) + 0.5 * bool(match["half"])) * scale
            yield _Amount(start=start, end=end, name=name, span=(number, number), form="other")
        elif match["paid"]:
            number = _number(match["paid"])
            yield _Amount(start=start, end=end, name="price", span=(number, number), form="other")
        elif match["decade"]:
            first = _decade(match["decade"].lower().strip("'’"), latest_year)
            if first <= latest_year:
                least, greatest = _PARTS.get((match["part"] or "").lower(), (0, 9))
                yield _Amount(start=start, end=end, name=YEAR, span=(first + least, first + greatest), form="period")
        else:
            number = _number(match["plain"])
            form_ = "year" if re.fullmatch(r"(?:1[5-9]|2[01])\d\d", match["plain"]) else "other"
            name = YEAR if form_ == "year" else ""
            number = int(number) if name else number
            yield _Amount(start=start, end=end, name=name, span=(number, number), form=form_)  # type: ignore[arg-type]


@cache
def _vocabulary(names: frozenset[str]) -> tuple[re.Pattern[str], dict[str, tuple[str, float]]]:
    """(what finds amounts, the units with those of the names)."""
    units = {spoken: (name, 1.0) for name in names for spoken in (_spoken(name), f"{_spoken(name)}s")} | _UNITS
    number = rf"(?:\d+(?:[.,]\d+)?|(?:{'|'.join(sorted(_NUMBERS, key=len, reverse=True))})\b)"
    unit = "|".join(map(re.escape, sorted(units, key=len, reverse=True)))
    return (
        re.compile(
            rf"(?<![\w.$€£])(?:(?:(?P<last>last|past|previous)\s+)?(?:(?P<aged>{number})[\s-]+|(?<=last\s)|(?<=past\s))"
            rf"(?P<years>years?|decades?)\b|(?P<measured>{number})[\s-]*(?:and\s+a\s+half\s+)?(?P<unit>{unit})\b"
            r"(?P<half>\s+and\s+a\s+half\b)?|(?:(?P<part>early|mid|late)[\s-]+)?(?:nineteen[\s-]+)?"
            rf"(?P<decade>['’]?(?:1[5-9]|20)?\d0['’]?s\b|(?:{'|'.join(_DECADES)})\b)|(?P<plain>\d+(?:\.\d+)?)(?![\w.]*\d))"
            r"|[$€£]\s?(?P<paid>\d+(?:[.,]\d+)?)",
            re.IGNORECASE,
        ),
        units,
    )


def _number(text: str) -> float:
    words = " ".join(text.lower().split())
    return _NUMBERS[words] if words in _NUMBERS else float(re.sub(r",(?=\d{3}$)", "", words).replace(",", "."))


def _decade(text: str, latest_year: int) -> int:
    """The first year of "1990s", "90s" or "nineties"; of two that it may be, the last that has begun."""
    digits = text.rstrip("s'’")
    if len(digits) == 4 and digits.isdigit():
        return int(digits)
    place = int(digits) if digits.isdigit() else _DECADES[text]
    return 2000 + place if place < 20 or 2000 + place <= latest_year else 1900 + place


def _spoken(name: str) -> str:
    return name.replace("_", " ").lower()


def _named(before: str, head: re.Match[str] | None, names: Collection[str]) -> str:
    """What a number is of that doesn't say it: the last name in its clause, else what the comparison implies."""
    clause = _CLAUSE.split(before)[-1].lower()
    known = {_spoken(name): name for name in (*names, "length", "price")}
    places = {name: clause.rfind(spoken) for spoken, name in known.items()}
    last = max(places, key=lambda name: places[name])
    if places[last] >= 0:
        return last
    return _IMPLIED.get(head.group().split()[0].lower(), "") if head else ""


def _negated(before: str) -> bool:
    """Whether a negation near the end of a text holds there: in its clause, with no verb of wishing well after it."""
    found = _NEGATION.search(_CLAUSE.split(before)[-1])
    return found is not None and not _WISH.match(found["far"] or "")


def _joined(head: re.Match[str] | None, between: str) -> bool:
    """Whether two amounts are the ends of one span: "between 5 and 9", "from 5 to 9", "5-9"."""
    joint, word = _TO.fullmatch(between), head.lastgroup if head else "equal"
    return joint is not None and (word == "between" or (word == "equal" and joint["word"].lower() != "and"))


def _kind(one: _Amount, head: re.Match[str] | None, tail: re.Match[str] | None) -> Kind | None:
    """How the number must compare with the amount; None where nothing says so."""
    word, after = (head.lastgroup if head else None), (tail.lastgroup if tail else None)
    if one.form == "age":
        return _age(head, tail)
    if one.form == "period" and math.isinf(one.span[1]):
        return "equal"  # the last ten years
    if after in ("from", "more"):
        return "from"
    if after in ("up_to", "less"):
        return "up_to"
    if word in _TURNED:
        return word
    return "equal" if one.form == "period" or (one.form == "year" and word == "equal") else None


def _age(head: re.Match[str] | None, tail: re.Match[str] | None) -> Kind | None:
    """``_kind`` of the year in which something of this age was made."""
    word, after = (head.lastgroup if head else None), (tail.lastgroup if tail else None)
    if after in ("from", "less"):
        return "from"
    if after in ("up_to", "more"):
        return "up_to"
    if head and head.group().lower().startswith(("older", "earlier")):
        return "below"
    if head and head.group().lower().startswith(("newer", "later", "younger", "more recent")):
        return "above"
    if tail is None or not tail["old"] or word is None:
        return None
    flipped: dict[str, Kind] = {"below": "above", "up_to": "from", "above": "below", "from": "up_to"}
    return flipped.get(word)


def _bound(kind: Kind, span: Range, step: float) -> Range:
    match kind:
        case "below":
            return -math.inf, span[0] - step
        case "up_to":
            return -math.inf, span[1]
        case "above":
            return span[1] + step, math.inf
        case _:
            return span[0], math.inf


def _hull(one: Range | None, other: Range) -> Range:
    return other if one is None else (min(one[0], other[0]), max(one[1], other[1]))


def _both(*given: Range | None) -> Range:
    known: Sequence[Range] = [one for one in given if one is not None]
    return max(least for least, _ in known), min(greatest for _, greatest in known)
