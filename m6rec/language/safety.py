"""Whether a generated text may be shown: short, decent, and nothing in it that its user would not want to see again.

Personal is what tells of a person: e-mail addresses, web addresses, telephone and other long numbers, whoever's they
are, and of the user what the system knows of them (their id, their details, three words in a row of the sentence about
them). A title of their history may stand in a text only where it is the catalogue's own and named on purpose, as
evidence or as the item that the text is about; what is invented or searched for must not be one (``taken``).

The built-in list is short and in English, as a start; an operator's own file is added to it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from m6rec.errors import ConfigError

BLOCKED = frozenset(
    "fuck fucking fucked fucker shit shitty bitch cunt whore slut nigger faggot retard retarded rape porn".split()
)
"""Words that no text to a user holds."""
NUM_ECHOED = 3
"""So many words in a row of what is private are an echo of it, or all of it where it is shorter."""

_TOKEN = re.compile(r"[\w@$*!'’]+")
_SPELLED = re.compile(r"(?<!\w)\w(?:[\W_]\w){2,}(?!\w)")
_LOOK_ALIKES = str.maketrans("013457@$!", "oieastasi")
_MANY = re.compile(r"(.)\1{2,}")
_PERSONAL = (
    ("an e-mail address", re.compile(r"\w@\w")),
    (
        "a web address",
        re.compile(r"://|\bwww\.|\b[\w-]+\.(?:com|org|net|info|io|co|edu|gov|de|uk|ru)\b", re.IGNORECASE),
    ),
    ("a telephone number", re.compile(r"(?:\d[\s().-]{0,2}){6,}\d")),
    ("a long number", re.compile(r"\d{5}")),
)


class Blocklist:
    """Words and phrases that no text may hold: whole words, in any case and in simple disguises.

    Seen through are accents and look-alikes ("5h1t"), letters repeated ("shiiit"), starred out ("sh*t") or set apart
    ("s.h.i.t"). A longer word that holds a blocked one is another word.

    Args:
        entries: A word or a phrase each, besides ``BLOCKED``.
    """

    def __init__(self, entries: Iterable[str] = ()) -> None:
        known = {" ".join(_words(entry)) for entry in (*BLOCKED, *entries)} - {""}
        self._words = frozenset(entry for entry in known if " " not in entry)
        self._phrases = tuple(f" {entry} " for entry in sorted(known) if " " in entry)

    @classmethod
    def load(cls, file: Path) -> Blocklist:
        """Reads an operator's file: a word or a phrase a line; ``#`` begins a comment.

        Raises:
            ConfigError: It can't be read.
        """
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the blocked words in {file} can't be read ({error}); give a text file") from error
        return cls(line.partition("#")[0] for line in lines)

    def holds(self, text: str) -> bool:
        """Whether something blocked stands in the text.

        >>> blocked = Blocklist(["rotten egg"])
        >>> [blocked.holds(text) for text in ("Sh1iiit!", "s h i t", "sh*t", "Rotten  eggs", "a rotten egg", "Shitake")]
        [True, True, True, False, True, False]
        """
        words = _words(text)
        line = f" {' '.join(words)} "
        return any(map(self._is, words)) or any(phrase in line for phrase in self._phrases)

    def _is(self, word: str) -> bool:
        if "*" in word:
            mask = re.compile(re.escape(word).replace(r"\*", "."))
            return not word.startswith("*") and any(map(mask.fullmatch, self._words))
        return not self._words.isdisjoint((word, _MANY.sub(r"\1", word), _MANY.sub(r"\1\1", word)))


def safety_violation(
    text: str,
    *,
    longest: int,
    blocked: Blocklist,
    private: Sequence[str] = (),
    taken: Collection[str] = (),
) -> str | None:
    """Why a text must not be shown; None where it may. The answer repeats nothing of what it objects to.

    >>> blocked = Blocklist()
    >>> safety_violation("call 555 123 4567", longest=60, blocked=blocked)
    'it holds a telephone number'
    >>> safety_violation("films for a writer aged 24", longest=60, blocked=blocked, private=["24", "writer"])
    'it echoes what is known of the user'
    >>> safety_violation("more like toy story", longest=60, blocked=blocked, taken=["Toy Story"])
    "it echoes a title of the user's history"

    Args:
        text: What was generated.
        longest: Its characters at most.
        blocked: What it may not hold.
        private: What is known of the user, as words. A single character is no secret that a text could give away.
        taken: Titles that it may not be, nor hold if they have several words: one word of a title is anybody's.
    """
    if not text.strip():
        return "it is empty"
    if len(text) > longest:
        return f"it has {len(text)} characters, and {longest} are allowed"
    if any(unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs") for character in text) or "�" in text:
        return "it holds a character that is not for reading"
    if blocked.holds(text):
        return "it holds a blocked word"
    for what, pattern in _PERSONAL:
        if pattern.search(text):
            return f"it holds {what}"
    line = f" {_plain(text)} "
    if any(f" {part} " in line for secret in private for part in _parts(_plain(secret))):
        return "it echoes what is known of the user"
    for title in map(_plain, taken):
        if title and (line == f" {title} " or (" " in title and f" {title} " in line)):
            return "it echoes a title of the user's history"
    return None


def _parts(secret: str) -> list[str]:
    """What must not be said of a secret."""
    words = secret.split()
    if len(words) <= NUM_ECHOED:
        return [secret] if len(secret) > 1 else []
    return [" ".join(words[first : first + NUM_ECHOED]) for first in range(len(words) - NUM_ECHOED + 1)]


def _plain(text: str) -> str:
    """The words of a text in small letters, without accents, a space between each two."""
    return " ".join(re.findall(r"\w+", _bare(text)))


def _bare(text: str) -> str:
    """In small letters, without accents and invisible characters."""
    wide = unicodedata.normalize("NFKD", text).casefold()
    return "".join(character for character in wide if unicodedata.category(character) not in ("Mn", "Cf"))


def _words(text: str) -> list[str]:
    """Words as they are read: look-alikes as letters, letters set apart as one word."""
    text = _SPELLED.sub(lambda spelled: re.sub(r"[\W_]", "", spelled.group()), _bare(text))
    tokens = (token.rstrip("!*").strip("'’") for token in _TOKEN.findall(text))
    return [
        token.translate(_LOOK_ALIKES) if any(map(str.isalpha, token)) else token  # a number stays one
        for token in tokens
        if token
    ]
