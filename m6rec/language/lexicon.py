"""What a catalogue's items are called in running text: titles, categories, years.

Titles are found by their longest match, in any case, with or without their year. A title of one word, such as "Heat"
or "The Game", is found only where more speaks for it: quotes, its year, a capital within a sentence, or a word such as
"like" before and an end after it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from m6rec.predicate import TITLE_YEAR, attributes
from m6rec.types import Item

MAX_TITLE_WORDS = 12
"""Of a title, by which it is found."""
MAX_NAMES = 32
"""Titles that are found in one text at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """The words that the items of a domain are talked about in.

    Attributes:
        nouns: What an item is called, in small letters and the singular, which adds an s.
        synonyms: Words that ask for one category, which is itself one of them: "comedy", "funny".
    """

    nouns: tuple[str, ...] = ("item",)
    synonyms: tuple[tuple[str, ...], ...] = ()


ITEMS = Vocabulary()
_TOKEN = re.compile(r"[\u3400-\u9fff]|(?:(?![\u3400-\u9fff])[^\W_])+(?:['’][^\W_]+)*|[^\w\s]|_")
_ACCENTS = re.compile(r"[\u0300-\u036f]+")
_YEAR_AFTER = re.compile(r"[\"”'’]?\s{0,2}(\()?(\d{4})\b")
_CUES = frozenset(
    "like liked love loved enjoyed hated seen saw watched watch read about than of called named why"
    " maybe try recommend suggest is was".split()
)
_ENDS = frozenset("and or but too is was because it which that though as instead so either with".split())
_OPENING = frozenset(".!?…:;\"“”'‘’([-–—")
"""Marks after which a word may have a capital that is no name."""
_ARTICLES = ("the", "a", "an")


@dataclass(frozen=True, slots=True)
class Token:
    """A word or a mark of a text.

    Attributes:
        word: In small letters, without apostrophes and accents; a Chinese character is one.
        text: As it is written.
        start: Where it begins.
    """

    word: str
    text: str
    start: int

    @property
    def is_word(self) -> bool:
        """Whether it is no mark."""
        return self.word[:1].isalnum()

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Name:
    """A title that was found.

    Attributes:
        items: Ids of the items that it may mean.
        first: Its first token.
        last: Its last one, that of its year included.
    """

    items: tuple[str, ...]
    first: int
    last: int


def tokens(text: str) -> list[Token]:
    """The words and marks of a text.

    >>> [token.word for token in tokens("Don't say “Heat” (1995)!")]
    ['dont', 'say', '“', 'heat', '”', '(', '1995', ')', '!']
    """
    return [Token(_word(found.group()), found.group(), found.start()) for found in _TOKEN.finditer(text)]


def _word(text: str) -> str:
    plain = text if text.isascii() else _ACCENTS.sub("", unicodedata.normalize("NFKD", text))
    return re.sub("['’]", "", plain).lower() or text


class Lexicon:
    """The names of a catalogue, which may change at any time.

    Args:
        items: The first of them.
        vocabulary: The words of their domain.

    Attributes:
        vocabulary: Likewise.
    """

    def __init__(self, items: Iterable[Item] = (), vocabulary: Vocabulary = ITEMS) -> None:
        self.vocabulary = vocabulary
        self._items: dict[str, Item] = {}
        self._titles: dict[tuple[str, ...], dict[str, None]] = {}
        self._counts: Counter[str] = Counter()
        self._years: Counter[int] = Counter()
        self._numbers: Counter[str] = Counter()
        self._phrases: dict[tuple[str, ...], str] | None = None
        self.put(items)

    def put(self, items: Iterable[Item]) -> None:
        """Adds items or replaces them."""
        for item in items:
            self.remove([item.id])
            self._items[item.id] = item
            for key in _keys(item):
                self._titles.setdefault(key, {})[item.id] = None
            self._counts.update(item.categories)
            self._count(item, 1)
        self._phrases = None

    def remove(self, ids: Iterable[str]) -> None:
        """Takes items out, if they are there."""
        for one in ids:
            item = self._items.get(one)
            if item is None:
                continue
            for key in _keys(item):
                del self._titles[key][one]
                if not self._titles[key]:
                    del self._titles[key]
            self._counts.subtract(item.categories)
            self._count(item, -1)
            del self._items[one]
            self._phrases = None

    @property
    def latest_year(self) -> int:
        """Of any item; 0 where none has one."""
        return max((year for year, count in self._years.items() if count > 0), default=0)

    @property
    def numbers(self) -> list[str]:
        """The names of numbers that some item has, such as "year"."""
        return [name for name, count in self._numbers.items() if count > 0]

    def commonest(self, count: int) -> list[str]:
        """The categories that most items are of."""
        return [name for name, items in self._counts.most_common(count) if items > 0]

    def categories_of(self, items: Iterable[str]) -> tuple[str, ...]:
        """Every category that one of the items is of."""
        known = (self._items[item] for item in items if item in self._items)
        return tuple(dict.fromkeys(name for item in known for name in item.categories))

    def number(self, item: str, scale: str) -> float | None:
        """How much an item has of a scale, "year", "length" or "price"; None where it doesn't tell."""
        known = self._items.get(item)
        return None if known is None else attributes(known).numbers.get(scale)

    def titles(self, text: Sequence[Token]) -> list[Name]:
        """The titles in a text, in their order; none overlaps another."""
        found: list[Name] = []
        words = [place for place, token in enumerate(text) if token.is_word]
        at = 0
        while at < len(words) and len(found) < MAX_NAMES:
            name = next(
                (
                    name
                    for size in range(min(MAX_TITLE_WORDS, len(words) - at), 0, -1)
                    if (name := self._name(text, words, at, size))
                ),
                None,
            )
            if name is None:
                at += 1
                continue
            found.append(name)
            while at < len(words) and words[at] <= name.last:
                at += 1
        return found

    def categories(self, text: Sequence[Token]) -> list[tuple[int, str]]:
        """(place, category) of each that is asked for by its own words or by synonyms."""
        phrases = self._all_phrases()
        longest = max(map(len, phrases), default=0)
        stems = [_stem(token.word) if token.is_word else "" for token in text]
        found, at = [], 0
        words = [place for place, stem in enumerate(stems) if stem]
        while at < len(words):
            for size in range(min(longest, len(words) - at), 0, -1):
                name = phrases.get(tuple(stems[place] for place in words[at : at + size]))
                if name is not None:
                    found.append((words[at], name))
                    at += size - 1
                    break
            at += 1
        return found

    def _count(self, item: Item, more: int) -> None:
        numbers = attributes(item).numbers
        for name in numbers:
            self._numbers[name] += more
        if "year" in numbers:
            self._years[int(numbers["year"])] += more

    def _name(self, text: Sequence[Token], words: Sequence[int], at: int, size: int) -> Name | None:
        """The title of exactly these words, if it is meant."""
        items = self._titles.get(tuple(text[place].word for place in words[at : at + size]))
        if not items:
            return None
        first, last = words[at], words[at + size - 1]
        before = text[first - 1] if first else None
        after = text[last + 1] if last + 1 < len(text) else None
        quoted = before is not None and after is not None and before.word in "\"“'‘" and after.word in "\"”'’.,…"
        ids, dated = tuple(items), False
        rest = "".join(_spaced(text[last + 1 : last + 5], text[last].end))
        year = _YEAR_AFTER.match(rest)
        if year:
            of_year = tuple(item for item in ids if self.number(item, "year") == float(year.group(2)))
            if of_year:
                ids, dated = of_year, True
                last = next(place for place in range(last + 1, len(text)) if text[place].word == year.group(2))
            elif year.group(1) and any(self.number(item, "year") is not None for item in ids):
                return None  # another one of this name
        bare = size - (text[first].word in _ARTICLES)
        if bare == 1 and not (quoted or dated):
            named = last if size > 1 else first
            capital = text[named].text[:1].isupper() and named > 0 and text[named - 1].word not in _OPENING
            cues = _CUES.union(self.vocabulary.nouns)
            shouted = all(token.text.isupper() for token in text if token.is_word)
            meant = before is not None and before.word in cues and (_stem(text[named].word),) not in self._all_phrases()
            ended = after is None or not after.is_word or after.word in _ENDS
            if not ((capital and not shouted and text[named].word != "i") or (meant and ended)):
                return None
        return Name(ids, first, last)

    def _all_phrases(self) -> dict[tuple[str, ...], str]:
        """Category by the stems of each phrase that asks for it."""
        if self._phrases is None:
            names = {_stems(name): name for name, items in self._counts.items() if items > 0}
            self._phrases = {}
            for line in self.vocabulary.synonyms:
                group = [_stems(phrase) for phrase in line]
                own = next((names[phrase] for phrase in group if phrase in names), None)
                if own is not None:
                    self._phrases |= dict.fromkeys(group, own)
            self._phrases |= names
            self._phrases.pop((), None)
        return self._phrases


def _spaced(part: Sequence[Token], start: int) -> Iterable[str]:
    for token in part:
        yield " " * (token.start - start) + token.text
        start = token.end


def _keys(item: Item) -> set[tuple[str, ...]]:
    """The words of the title, with and without its year and a leading article."""
    keys = set()
    for title in (item.title, TITLE_YEAR.sub("", item.title)):
        words = tuple(token.word for token in tokens(title) if token.is_word)[:MAX_TITLE_WORDS]
        keys.add(words)
        if len(words) > 1 and words[0] in _ARTICLES:
            keys.add(words[1:])
    return keys - {()}


def _stems(phrase: str) -> tuple[str, ...]:
    return tuple(_stem(token.word) for token in tokens(phrase) if token.is_word)


def _stem(word: str) -> str:
    """A word without its plural: "comedies" is "comedy", "children's" is "children"."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word
