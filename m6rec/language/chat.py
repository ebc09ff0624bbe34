"""Conversation: what the user of a dialogue wants by now, as a pure function of its messages.

``read`` goes through the messages once and ends with a ``Session``: what was liked, rejected and shown, and which items
may come next. Nothing is kept between two requests, so a conversation is as large as its messages, and any process can
answer any turn.

Wishes are found by rules for English that fit on this page: words of negation hold up to the end of their clause,
categories are known by their own words and by synonyms of the domain, titles by their longest match in the catalogue
(``language.lexicon``), years and other numbers by what stands beside them (``language.ranges``). They are no
understanding: what they miss is answered by a question, never by a guess at an item. Only the user's messages and what
was recommended in ours count; a system message or an order in a title is just text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import takewhile
from typing import Literal

from m6rec.language.faithfulness import unsupported_claim
from m6rec.language.lexicon import Lexicon, Token, Vocabulary, tokens
from m6rec.language.ranges import ranges
from m6rec.language.translation import to_english
from m6rec.predicate import Predicate
from m6rec.text.verbalise import listed, quote
from m6rec.types import Item

Role = Literal["system", "user", "assistant"]
Intent = Literal["recommend", "feedback", "explain", "ask", "smalltalk"]
"""What a turn wants: items, other items, a reason, nothing that can be told (so that we ask), or nothing."""

MAX_QUERY_CHARS = 300
"""Of the user's latest words that retrieval reads."""
OFFER, WHY = "How about ", "Why "
"""How our messages begin that recommend or explain, by which they are known when they come back."""

_NEGATIONS = frozenset(
    "no not nor never without hate hated hates dislike disliked less avoid except skip dont didnt doesnt isnt wasnt"
    " wont cant couldnt wouldnt arent too tired sick fed excluding minus bored neither nothing forget scrap"
    " spare".split()
)
_POSITIVE = frozenset("want like love prefer need give show enjoy recommend suggest find try looking".split())
_LIKING = frozenset(
    "like liked love loved enjoy enjoyed enjoying similar favorite favourite fan adore adored prefer".split()
)
_DISLIKING = frozenset("hate hated hates dislike disliked awful terrible boring worst".split())
_POINTERS = frozenset("it them that this those these".split())
_SEEN = frozenset("seen saw watched read tried bought own owned know already finished heard".split())
_UNSEEN = frozenset("havent never hadnt not didnt".split())
_ASKING = frozenset("is was are does did have has what how who whats hows".split())
_REQUESTS = frozenset(
    "recommend recommendation suggest suggestion something anything looking want need find show give mood idea watch"
    " read buy try interested ideas more similar else".split()
)
_REJECTIONS = frozenset("no nope nah not another else different instead next other hate skip pass already".split())
_GREETINGS = frozenset(
    "hi hello hey thanks thank bye goodbye cheers great perfect good nice welcome ok okay cool".split()
)
_WHY = re.compile(r"\b(why|how come|explain|what makes|reasons?)\b(?! (not|don)\b)", re.IGNORECASE)
_COUNTS = {word: n for n, word in enumerate("one two three four five six seven eight nine ten".split(), 1)}
_COUNTS |= {str(n): n for n in range(1, 11)} | {"single": 1}
_GIVING = frozenset("just only exactly name pick list".split())
_POINTING = frozenset(
    "the all those these that this another other any which no number part war good newer older".split()
)
_PICKS = frozenset("recommendation recommendations suggestion suggestions idea ideas option options pick picks".split())
_MEASURES = frozenset("hour hours minute minutes page pages year years decade decades".split())
_PLACES = {"first": 0, "1st": 0, "second": 1, "2nd": 1, "third": 2, "3rd": 2, "last": -1}
_THAT = re.compile(r"\b(?:more|something|anything|others?|ones?) (?:like|similar to) (?:that|this|it)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Scale:
    """Something that items have more or less of.

    Attributes:
        name: A key of ``Lexicon.number``.
        more: Words that ask for more of it than the last items have.
        less: … for less.
        too_much: Words that ask for less of it after "too" or "not as", and for more before "enough".
        too_little: Likewise the other way round.
    """

    name: str
    more: frozenset[str]
    less: frozenset[str]
    too_much: frozenset[str]
    too_little: frozenset[str]


def _scale(name: str, more: str, less: str, too_much: str, too_little: str) -> Scale:
    return Scale(name, *(frozenset(words.split()) for words in (more, less, too_much, too_little)))


SCALES = (
    _scale(
        "year",
        "newer later recent modern contemporary",
        "older earlier classic vintage",
        "new recent modern",
        "old dated",
    ),
    _scale("length", "longer lengthier", "shorter quicker", "long lengthy slow", "short"),
    _scale("price", "pricier dearer", "cheaper", "expensive pricey costly dear", "cheap"),
)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a dialogue, in OpenAI's roles."""

    role: Role
    text: str


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a conversation has come to.

    Attributes:
        intent: What the last turn wants.
        query: The user's latest words, for retrieval.
        liked: Ids that the user likes, oldest first.
        disliked: … that they don't.
        seen: … that they know already.
        shown: … that were recommended in this conversation, or named by whoever recommends.
        last: … by the last recommendation, in its order.
        about: … that the last turn is about.
        wanted: Categories that items must be of.
        unwanted: … must not be of.
        akin: … of which items must have one, those of what they are to be like; empty for any.
        bounds: Least and greatest number of each scale, by its name; both are allowed.
        untold: Scales that the last turn asked for but the last items don't tell.
        count: How many items are wanted; 0 where that was not said.
    """

    intent: Intent = "ask"
    query: str = ""
    liked: tuple[str, ...] = ()
    disliked: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    akin: tuple[str, ...] = ()
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    untold: tuple[str, ...] = ()
    count: int = 0

    @property
    def named(self) -> frozenset[str]:
        """Every item that has come up."""
        return frozenset((*self.liked, *self.disliked, *self.seen, *self.shown))

    @property
    def told(self) -> bool:
        """Whether there is anything to go by."""
        return bool(self.named or self.predicate)

    @property
    def predicate(self) -> Predicate:
        """What must hold of an item that is asked for; whether it has come up already is another matter."""
        return Predicate(any_of=self.akin, all_of=self.wanted, none_of=self.unwanted, ranges=self.bounds)


def read(messages: Sequence[Message], lexicon: Lexicon) -> Session:
    """What the messages have come to, after the last of them."""
    session = Session()
    for message in messages:
        if message.role == "user":
            session = _heard(session, to_english(message.text), lexicon)
        elif message.role == "assistant":
            session = _said(session, message.text, lexicon)
    return session


def _said(session: Session, text: str, lexicon: Lexicon) -> Session:
    """After a message of ours, or of whoever recommends."""
    if text.startswith(WHY):
        return session
    start = text.find(OFFER)
    if start >= 0:
        outside = re.sub(r'"[^"]*"', lambda quoted: " " * len(quoted.group()), text)
        end = outside.find("?", start)
        text = text[start:end] if end > 0 else text[start:]
    else:
        text = text.split(f' {WHY}"', 1)[0]  # a reason names what it rests on
    items = _unique(item for name in lexicon.titles(tokens(text)) for item in name.items)
    if not items:
        return session
    return replace(session, last=items, shown=_unique((*session.shown, *items)))


def _heard(session: Session, text: str, lexicon: Lexicon) -> Session:
    """After a message of the user's."""
    heard = tokens(text)
    words = {token.word for token in heard}
    signs = _signs(heard)
    titles = lexicon.titles(heard)
    inside = {place for name in titles for place in range(name.first, name.last + 1)}
    liked, disliked, seen = set[str](), set[str](), set[str]()
    named = _unique(item for name in titles for item in name.items)
    pointed = _pointed(text, session.last, lexicon.vocabulary)
    like = bool(_like(lexicon.vocabulary).search(text))
    why = bool(_WHY.search(text)) and bool(named or pointed or session.last)
    for name in () if why else titles:
        verdict = _verdict(heard, name.first, signs) or ("liked" if like else "")
        {"liked": liked, "disliked": disliked, "seen": seen}.get(verdict, set()).update(name.items)
    # A word of a title is no wish.
    free = [token for place, token in enumerate(heard) if place not in inside]
    free_signs = [sign for place, sign in enumerate(signs) if place not in inside]
    if not why and (pointed or (session.last and not named)):
        target = set(pointed or session.last)
        verdict = _verdict_on_last(free, free_signs, bool(pointed) or bool(_THAT.search(text)))
        {"liked": liked, "disliked": disliked, "seen": seen}.get(verdict, set()).update(target)
    wanted, unwanted = _categories(free, free_signs, lexicon)
    akin = lexicon.categories_of(sorted(liked)) if like else ()
    untitled = text
    for name in titles:  # neither is a number in a title
        start, end = heard[name.first].start, heard[name.last].end
        untitled = f"{untitled[:start]}{' ' * (end - start)}{untitled[end:]}"
    bounds, untold = _bounds(free, untitled, session, lexicon)
    count = _count(free, lexicon)
    changed = bool(wanted or unwanted or bounds or untold or liked or disliked or seen or count)
    asks = bool(words & _REQUESTS) or bool(_THAT.search(text))
    rejects = bool(session.last) and bool(words & _REJECTIONS)
    intent: Intent
    if why:
        intent = "explain"
    elif session.last and (changed or rejects):
        intent = "feedback"
    elif changed or asks or rejects:
        intent = "recommend"
    elif words & _GREETINGS:
        intent = "smalltalk"
    else:
        intent = "ask"
    if intent == "feedback" and liked and not (wanted or unwanted or bounds or asks or rejects or named):
        intent = "smalltalk"  # praise of what was recommended
    both = {**session.bounds, **bounds}
    return replace(
        session,
        intent=intent,
        query=f"{session.query} {text}"[-MAX_QUERY_CHARS:].strip(),
        liked=_unique((*(one for one in session.liked if one not in disliked), *sorted(liked - disliked))),
        disliked=_unique((*(one for one in session.disliked if one not in liked), *sorted(disliked))),
        seen=_unique((*session.seen, *sorted(seen))),
        about=named or pointed or session.last,
        akin=akin or (() if wanted else session.akin),
        wanted=wanted or tuple(one for one in session.wanted if one not in unwanted),
        unwanted=_unique((*(one for one in session.unwanted if one not in wanted), *unwanted)),
        bounds={name: (least, greatest) for name, (least, greatest) in both.items()},
        untold=untold,
        count=count or session.count,
    )


def _signs(heard: Sequence[Token]) -> list[bool]:
    """Of each token whether a negation holds there; it does up to the end of its clause or a verb of wishing."""
    signs: list[bool] = []
    negated, since = False, 9
    for place, token in enumerate(heard):
        word = token.word
        before = heard[place - 1].word if place else ""
        if not token.is_word:
            negated = negated and token.word in "\"'()-"
        elif word == "but" and before not in ("anything", "nothing", "everything"):
            negated = False
        elif word in _NEGATIONS or (word, before) in (
            ("of", "instead"),
            ("than", "rather"),
            ("than", "other"),
            ("but", "anything"),
            ("out", "leave"),
            ("out", "leaving"),
            ("out", "rule"),
            ("away", "stay"),
            ("of", "enough"),
        ):
            negated, since = True, 0
        elif word in _POSITIVE and since > 2:
            negated = False
        elif word == "enough" and negated:  # "not funny enough" wants it
            for back in range(place - 1, max(-1, place - 4), -1):
                signs[back] = False
        signs.append(negated)
        since += 1
    return signs


def _clause(heard: Sequence[Token], place: int) -> list[Token]:
    """The words of the clause before a place."""
    first = place
    while first and (heard[first - 1].is_word or heard[first - 1].word in "\"'(,"):
        first -= 1
    return [token for token in heard[first:place] if token.is_word]


def _verdict(heard: Sequence[Token], place: int, signs: Sequence[bool]) -> str:
    """How the user thinks of an item that is named at a place."""
    before = {token.word for token in _clause(heard, place)}
    negated = place > 0 and signs[place - 1]
    if before & _DISLIKING or (negated and not before & _SEEN):
        return "disliked"
    if before & _SEEN and not before & _LIKING:
        return "" if before & _UNSEEN else "seen"
    if before & _LIKING:
        return "liked"
    end = next((token.word for token in heard[place:] if token.word in ".!?"), "")
    asked = end == "?" and bool(before & _ASKING or not before)
    return "" if asked else "liked"


def _verdict_on_last(free: Sequence[Token], signs: Sequence[bool], pointed: bool) -> str:
    """How the user thinks of what was recommended, where they name nothing; "I don't like horror" is no word on it."""
    words = {token.word for token in free}
    liking = [place for place, token in enumerate(free) if token.word in _LIKING]
    if pointed or words & _POINTERS:
        if words & _DISLIKING or any(signs[place] for place in liking):
            return "disliked"
        if liking and not words & {"id", "something"}:  # "not that one, I'd like …"
            return "liked"
        if any(sign and token.word in _POINTERS for token, sign in zip(free, signs, strict=True)):
            return "disliked"
    return "seen" if words & _SEEN - {"read", "know", "heard"} and not words & _UNSEEN - {"not"} else ""


@cache
def _ordinal(vocabulary: Vocabulary) -> re.Pattern[str]:
    """What points at an item by its place, as "the second one"."""
    nouns = "|".join(map(re.escape, vocabulary.nouns))
    return re.compile(
        rf"\bthe (first|1st|second|2nd|third|3rd|last)(?: (?:one|item|suggestion|{nouns}))?"
        r"(?=\s*(?:[.,;:!?)]|$|is\b|was\b|looks\b|sounds\b|and\b|but\b|again\b|please\b))",
        re.IGNORECASE,
    )


@cache
def _like(vocabulary: Vocabulary) -> re.Pattern[str]:
    """What asks for items that are like another, as "something like"."""
    nouns = "|".join(map(re.escape, vocabulary.nouns))
    return re.compile(
        rf"\b(?:(?:more|something|anything|others?|ones?|items?|(?:{nouns})s?) (?:like|similar to|resembling)|"
        r"along (?:those|these|the same|similar) lines|in (?:that|the same|this|a similar) (?:vein|style|spirit)|"
        r"in the (?:style|vein|spirit) of|(?:of )?(?:that|the same) (?:sort|kind|type)|"
        r"if (?:i|you|we|they) (?:liked?|loved?|enjoy(?:ed)?))\b",
        re.IGNORECASE,
    )


def _pointed(text: str, last: Sequence[str], vocabulary: Vocabulary) -> tuple[str, ...]:
    """The items of the last recommendation that the text points at by their places."""
    places = [_PLACES[found.group(1).lower()] for found in _ordinal(vocabulary).finditer(text)]
    found = tuple(last[place] for place in places if -len(last) <= place < len(last))
    return found or (tuple(last[:1]) if _THAT.search(text) else ())


def _categories(
    free: Sequence[Token], signs: Sequence[bool], lexicon: Lexicon
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Categories that are wanted, and those that are not."""
    found = lexicon.categories(free)
    wanted = _unique(name for place, name in found if not signs[place])
    unwanted = _unique(name for place, name in found if signs[place])
    return tuple(name for name in wanted if name not in unwanted), unwanted


def _bounds(
    free: Sequence[Token], text: str, session: Session, lexicon: Lexicon
) -> tuple[dict[str, tuple[float, float]], tuple[str, ...]]:
    """Bounds of scales that the turn asks for, and scales that it asks for in vain."""
    bounds: dict[str, tuple[float, float]] = {}
    untold = []
    for scale in SCALES:
        way = _way(free, scale)
        if not way:
            continue
        told = [number for item in session.last if (number := lexicon.number(item, scale.name)) is not None]
        if told:
            step = 1e-6 if scale.name != "year" else 1
            bounds[scale.name] = (max(told) + step, float("inf")) if way > 0 else (float("-inf"), min(told) - step)
        elif session.last:
            untold.append(scale.name)
    asked = ranges(text, lexicon.latest_year, lexicon.numbers)
    bounds |= {name: bound for name, bound in asked.items() if name in lexicon.numbers}
    untold += [name for name in asked if name not in lexicon.numbers]
    return bounds, _unique(name for name in untold if name not in bounds)


def _count(free: Sequence[Token], lexicon: Lexicon) -> int:
    """How many items a turn asks for, as "just one", "two comedies" or "name five"; 0 where it doesn't say."""
    named = {place for place, _ in lexicon.categories(free)}
    nouns = {form for noun in lexicon.vocabulary.nouns for form in (noun, f"{noun}s")} | _PICKS
    for place, token in enumerate(free):
        number = _COUNTS.get(token.word, 0)
        before = [other.word for other in _clause(free, place)]
        if not number or _SEEN.intersection(before) or (place and free[place - 1].word in _POINTING):
            continue
        after = [*takewhile(lambda at: free[at].is_word, range(place + 1, min(place + 4, len(free))))]
        if after and free[after[0]].word in _MEASURES:
            continue
        things = any(at in named or free[at].word in nouns for at in after)
        if things or _GIVING.intersection(before[-2:]):
            return number
    return 0


def _way(free: Sequence[Token], scale: Scale) -> int:
    """1 for more, -1 for less, 0 for neither."""
    for place, token in enumerate(free):
        before = [other.word for other in free[max(0, place - 3) : place]]
        after = free[place + 1].word if place + 1 < len(free) else ""
        negated = bool({"not", "isnt", "less", "too", "so", "as"}.intersection(before))
        if token.word in scale.too_much | scale.too_little and (negated or after == "enough"):
            way = -1 if token.word in scale.too_much else 1
            return -way if after == "enough" else way
        more = token.word in scale.more or (token.word in scale.too_much and before[-1:] == ["more"])
        less = token.word in scale.less or (token.word in scale.too_much and before[-1:] == ["less"])
        if (more or less) and before[-1:] != ["no"]:
            way = 1 if more else -1
            return -way if "not" in before or "dont" in before else way
    return 0


def _unique(ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(ids))


_OWN_PAST = re.compile(
    r"\b(?:i|we)\b(?!(?: \w+)? (?:would|can|could|think|suggest|recommend)\b)[^.?!\"]*"
    r"\b(?:saw|seen|watched|watch|read|liked?|loved?|enjoy(?:ed)?|tried|heard)\b",
    re.IGNORECASE,
)
_NO_CLAIMS = (
    "how about what have you ever seen watched heard tried or try maybe perhaps sure okay ok well yes oh hi hello then"
    " let me see i we can could would should might may think suggest recommend want like love enjoy if so there check"
    " out give try look looking for something some one them another also too and you your"
)
"""Words that a recommendation may have besides, as they say nothing of an item."""

# Our words. Titles stand in double quotes, which none can close, and a number in brackets after them is their year.


def offer(items: Sequence[Item], lexicon: Lexicon) -> str:
    """The sentence that recommends items."""
    named = [title(item, lexicon) for item in items]
    return f"{OFFER}{' or '.join(filter(None, (', '.join(named[:-1]), *named[-1:])))}?"


def unsaid(text: str, items: Sequence[Item], lexicon: Lexicon) -> str | None:
    """Why a model's sentence mustn't recommend these items; None where it may.

    It may say what ``offer`` says, the items' years and categories, and words that claim nothing.

    >>> film = Item("1", "Heat", ("Crime",), {"year": 1995})
    >>> unsaid('Have you seen "Heat" (1995)?', [film], Lexicon([film]))
    >>> unsaid('I have seen "Heat" (1995), it is great.', [film], Lexicon([film]))
    'it tells what whoever recommends has done'
    """
    outside = re.sub(r'"[^"]*"', " ", text)
    if _OWN_PAST.search(outside):
        return "it tells what whoever recommends has done"
    if not outside.rstrip().endswith((".", "?", "!")):
        return "the sentence has no end"
    long = re.findall(r"[^\W\d_]{4,}", outside.lower())
    if len(set(long)) < len(long):
        return "it repeats itself"
    facts = ", ".join(name for item in items for name in item.categories)
    evidence = f"{offer(items, lexicon)} {facts}. {_NO_CLAIMS} {' '.join(lexicon.vocabulary.nouns)}"
    said = text.replace("?", ".")  # a question claims no less
    return unsupported_claim(said, evidence, [item.title for item in items])


def title(item: Item, lexicon: Lexicon) -> str:
    """A title in quotes, with its year if known and not part of it."""
    year = lexicon.number(item.id, "year")
    text = quote(item.title)
    return text if year is None or f"({year:.0f})" in text else f"{text} ({year:.0f})"


def untold(session: Session, noun: str) -> str:
    """The reply to a comparison with unknown numbers; "" if there is none."""
    words = {"year": "how old", "length": "how long", "price": "how expensive"}
    asked = [words[name] for name in session.untold]
    return f"I don't know {listed(asked)} these {noun}s are." if asked else ""


def nothing_fits(session: Session, noun: str) -> str:
    """The reply if no item satisfies the constraints."""
    wishes = [f"of the category {quote(name)}" for name in session.wanted]
    if session.akin:
        wishes.append(f"of one of the categories {listed([quote(name) for name in session.akin])}")
    wishes += [f"not of the category {quote(name)}" for name in session.unwanted]
    for name, (least, greatest) in session.bounds.items():
        limits = [f"from {least:.0f}"] * (least > float("-inf")) + [f"up to {greatest:.0f}"] * (greatest < float("inf"))
        wishes.append(f"of the {name} {' '.join(limits)}")
    if not wishes:
        return f"I have no other {noun} to suggest."
    return f"I found no other {noun} {listed(wishes)}. Which of these criteria should I drop?"


def question(lexicon: Lexicon, noun: str) -> str:
    """The question to a user of unknown taste."""
    common = [quote(name) for name in lexicon.commonest(3)]
    kinds = f", such as {' or '.join(filter(None, (', '.join(common[:-1]), *common[-1:])))}" if common else ""
    return f"What {noun} have you liked, or what kind are you looking for{kinds}?"


def politeness(text: str) -> str:
    """The reply to small talk."""
    words = {token.word for token in tokens(text)}
    if words & {"bye", "goodbye"}:
        return "Goodbye!"
    if words & {"hi", "hello", "hey"}:
        return "Hello!"
    if words & {"thanks", "thank", "cheers"}:
        return "You are welcome."
    return "Good to know."
