"""How numbers, times and names are worded: pure functions, the same for every domain.

M6-Rec (arXiv 2205.08084, section 3.2) writes its features as plain text: "19 hours ago", "high, among the top 5%",
"more than 10 times". The paper leaves the buckets open; ours are documented at each function. Few different
wordings mean few different texts, and each text's state is computed once.
"""

import datetime
import math
import re
from collections.abc import Callable, Sequence

from m6rec.errors import DataError
from m6rec.types import Feedback, Value

_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_DECADES = ("twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties", "nineties")
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


def quote(text: str, *, longest: int = 200) -> str:
    r"""A title or a review in double quotes, as one line that can't close its quotes itself.

    Runs of white space and control characters become one space, double quotes become single ones, and what is
    longer than ``longest`` characters ends in an ellipsis.

    >>> quote('The  "Real"\n McCoy')
    '"The \'Real\' McCoy"'
    >>> quote("abcdef", longest=4)
    '"abc…"'
    """
    line = plain(text).replace('"', "'")
    return f'"{line}"' if len(line) <= longest else f'"{line[: longest - 1].rstrip()}…"'


def plain(text: str) -> str:
    r"""A text of others as one line: runs of white space and control characters become one space.

    >>> plain("  Made of\n\twood ")
    'Made of wood'
    """
    return _SPACE.sub(" ", text).strip()


def sentence(text: str) -> str:
    """The text with a capital at its start and a full stop at its end.

    >>> sentence("the movie")
    'The movie.'
    """
    return f"{text[:1].upper()}{text[1:]}."


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence.

    >>> listed(["Action", "Comedy", "Drama"])
    'Action, Comedy and Drama'
    >>> listed(["Action"])
    'Action'
    >>> listed([])
    ''
    """
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def ago(seconds: float) -> str:
    """How long ago something was, in its largest whole unit (a month has 30 days, a year 365).

    >>> [ago(20), ago(23 * 60), ago(19 * 3600), ago(3 * 86400)]
    ['just now', '23 minutes ago', '19 hours ago', '3 days ago']
    >>> [ago(65 * 86400), ago(364 * 86400), ago(400 * 86400)]
    ['2 months ago', '11 months ago', '1 year ago']

    Raises:
        DataError: ``seconds`` is negative: the event lies in the future of the question.
    """
    if not seconds >= 0:
        raise DataError(f"An event {seconds} seconds ago isn't in the past; times have to be 0 or more.")
    if seconds < _MINUTE:
        return "just now"
    days = int(seconds // _DAY)
    if days >= 365:
        return f"{_count(days // 365, 'year')} ago"
    if days >= 30:
        return f"{_count(min(days // 30, 11), 'month')} ago"
    if days:
        return f"{_count(days, 'day')} ago"
    if seconds >= _HOUR:
        return f"{_count(int(seconds // _HOUR), 'hour')} ago"
    return f"{_count(int(seconds // _MINUTE), 'minute')} ago"


def month(time: float) -> str:
    """The month (UTC) of a time in seconds since 1970, in English whatever the locale.

    >>> month(1_702_000_000)
    'December'
    """
    return _MONTHS[datetime.datetime.fromtimestamp(time, datetime.UTC).month - 1]


_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_PARTS_OF_DAY = ("night", "morning", "afternoon", "evening")


def moment(time: float) -> str:
    """The part of the day in six hours, the weekday and the month (UTC) of a time in seconds since 1970.

    >>> moment(1_702_000_000)
    'Friday night in December'
    """
    when = datetime.datetime.fromtimestamp(time, datetime.UTC)
    return f"{_WEEKDAYS[when.weekday()]} {_PARTS_OF_DAY[when.hour // 6]} in {month(time)}"


def age(years: float) -> str:
    """An age as a phrase that follows a person.

    From 20, a decade is early (0-3), mid (4-6) or late (7-9).

    >>> [age(7), age(15), age(22), age(35), age(49), age(101)]
    ['under ten', 'in their teens', 'in their early twenties', 'in their mid thirties', 'in their late forties', 'over a hundred']

    Raises:
        DataError: The age is negative or not a number.
    """  # noqa: E501
    if not years >= 0:
        raise DataError(f"{years} is not an age; give 0 or more years.")
    if years < 10:
        return "under ten"
    if years < 20:
        return "in their teens"
    if years >= 100:
        return "over a hundred"
    decade, year = divmod(int(years), 10)
    return f"in their {'early' if year < 4 else 'mid' if year < 7 else 'late'} {_DECADES[decade - 2]}"


_STARS = ("hated {}", "disliked {}", "was lukewarm about {}", "liked {}", "loved {}")


def stars(value: float) -> Feedback:
    """What one to five stars say; half stars and values beyond are worded as the next within.

    >>> [stars(value).words for value in (5, 3.5, 0)]
    ['loved {}', 'was lukewarm about {}', 'hated {}']
    >>> stars(3.5)
    Feedback(positive=False, strength=0.625, words='was lukewarm about {}')
    """
    within = min(max(value, 1), 5)
    return Feedback(value >= 4, (within - 1) / 4, _STARS[int(within) - 1])


def choice(yes: str, no: str) -> Callable[[float], Feedback]:
    """What a value above 0 says, and one of 0 or below.

    >>> choice("clicked", "skipped")(1)
    Feedback(positive=True, strength=1.0, words='clicked {}')
    """
    return lambda value: Feedback(value > 0, float(value > 0), f"{yes if value > 0 else no} {{}}")


_PERCENTILES = (
    (0.99, "very high, among the top 1%"),
    (0.95, "very high, among the top 5%"),
    (0.90, "high, among the top 10%"),
    (0.75, "high, among the top 25%"),
    (0.50, "above average, in the upper half"),
    (0.25, "below average, in the lower half"),
    (0.10, "low, among the bottom 25%"),
    (0.00, "very low, among the bottom 10%"),
)


def percentile(rank: float) -> str:
    """An adjective and the bucket of a rank from 0 (lowest) to 1 (highest).

    The buckets start at .99, .95, .9, .75, .5, .25, .1 and 0.

    >>> [percentile(0.995), percentile(0.8), percentile(0.3)]
    ['very high, among the top 1%', 'high, among the top 25%', 'below average, in the lower half']

    Raises:
        DataError: The rank is outside [0, 1].
    """
    _need_fraction(rank)
    return next(words for start, words in _PERCENTILES if rank >= start)


def share(fraction: float, *, step: int = 5) -> str:
    """A fraction as per cent, rounded to ``step`` (halves up), so that few different texts arise.

    >>> [share(0.549), share(0.525), share(1)]
    ['55%', '55%', '100%']

    Raises:
        DataError: The fraction is outside [0, 1].
    """
    _need_fraction(fraction)
    return f"{math.floor(round(100 * fraction / step, 9) + 0.5) * step}%"


def capped_count(count: int, *, cap: int = 10, noun: str = "time") -> str:
    """A count that stops at ``cap``; times have words of their own.

    >>> [capped_count(0), capped_count(1), capped_count(4), capped_count(11)]
    ['never', 'once', '4 times', 'more than 10 times']
    >>> [capped_count(0, noun="viewer"), capped_count(1, noun="viewer"), capped_count(7, cap=5, noun="viewer")]
    ['no viewers', '1 viewer', 'more than 5 viewers']

    Raises:
        DataError: The count is negative.
    """
    if count < 0:
        raise DataError(f"{count} is not a count; give 0 or more.")
    if count > cap:
        return f"more than {_count(cap, noun)}"
    if noun == "time" and count < 2:
        return ("never", "once")[count]
    return f"no {noun}s" if count == 0 else _count(count, noun)


def cost(amount: Value | None, *, currency: str = "$") -> str:
    """``price`` of a detail of an item, "" where that is no price.

    >>> [cost(12.5), cost("12.50"), cost("ask us"), cost(None)]
    ['$10 to $20', '$10 to $20', '', '']
    """
    try:
        return price(float(amount), currency=currency) if amount is not None else ""
    except (ValueError, DataError):
        return ""


_PRICES = (5, 10, 20, 50, 100, 200, 500, 1_000)


def price(amount: float, *, currency: str = "$") -> str:
    """The bucket of a price; the edges are 5, 10, 20, 50, 100, 200, 500 and 1000, each in the bucket above it.

    >>> [price(0), price(3.5), price(20), price(2_000, currency="€")]
    ['free', 'under $5', '$20 to $50', '€1000 or more']

    Raises:
        DataError: The price is negative or not a number.
    """
    if not amount >= 0:
        raise DataError(f"{amount} is not a price; give 0 or more.")
    if amount == 0:
        return "free"
    above = [edge for edge in _PRICES if edge > amount]
    below = [edge for edge in _PRICES if edge <= amount]
    if not below:
        return f"under {currency}{above[0]}"
    return f"{currency}{below[-1]} to {currency}{above[0]}" if above else f"{currency}{below[-1]} or more"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _need_fraction(fraction: float) -> None:
    if not 0 <= fraction <= 1:
        raise DataError(f"{fraction} is not a fraction; give a number from 0 to 1.")
