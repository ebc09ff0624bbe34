"""What a generated text may be: rules that allow some tokens after each beginning."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from m6rec.errors import ConfigError
from m6rec.text.tokenizer import Tokenizer

State = TypeVar("State", bound=Hashable)


class Constraint(Protocol[State]):
    """A rule for generated texts, as an automaton. A text that can't go on is at its end."""

    @property
    def start(self) -> State:
        """Before the first token."""

    def allowed(self, state: State) -> NDArray[np.int64]:
        """Ids that may come next, control tokens left out; at the start at least one."""

    def may_end(self, state: State) -> bool:
        """Whether what has been generated is a whole text."""

    def advance(self, state: State, token: int) -> State:
        """After ``token``, one of those allowed."""


class TitleTrie:
    """Allows the texts of a catalogue and no others (a prefix tree of their tokens, as in GENRE, De Cao et al., 2021).

    A text that another one begins with can be chosen as well: there the model decides between its end-of-text token, if
    it has one, and going on. Texts that end in what follows them in the prompt, such as a closing quotation mark, make
    that choice easier for it. A node takes 17 bytes.

    Args:
        tokenizer: Of the foundation that generates.
        texts: In any order; doubles don't matter.

    Attributes:
        start: The root.
        longest: Tokens of the longest text; with ``max_tokens`` of one more, none is cut short.

    Raises:
        ConfigError: There are no texts, or one has no token.
    """

    start = 0

    def __init__(self, tokenizer: Tokenizer, texts: Iterable[str]) -> None:
        rows = sorted(tokenizer.encode(sorted(set(texts))))
        if not rows or not rows[0]:
            raise ConfigError("a trie needs at least one text, and none that is empty")
        self.longest = max(map(len, rows))
        # Breadth first, so that the children of a node are neighbours.
        tokens, first, whole = [-1], [], []
        spans = [(0, len(rows), 0)]  # rows that go through each node, and its depth
        for begin, end, depth in spans:
            first.append(len(spans))
            inner = begin
            while inner < end and len(rows[inner]) == depth:  # the shortest stand first
                inner += 1
            whole.append(inner > begin)
            for token, group in groupby(rows[inner:end], key=lambda row: row[depth]):
                count = sum(1 for _ in group)
                tokens.append(token)
                spans.append((inner, inner + count, depth + 1))
                inner += count
        self._tokens = np.array(tokens, np.int64)
        self._first = np.array([*first, len(spans)], np.int64)
        self._whole = np.array(whole, np.bool_)

    def allowed(self, state: int) -> NDArray[np.int64]:
        """See ``Constraint``; ascending."""
        return self._tokens[self._first[state] : self._first[state + 1]]

    def may_end(self, state: int) -> bool:
        """See ``Constraint``."""
        return bool(self._whole[state])

    def advance(self, state: int, token: int) -> int:
        """See ``Constraint``."""
        place = int(np.searchsorted(self.allowed(state), token))
        return int(self._first[state]) + place


class Unquoted:
    """Allows one line that neither holds nor escapes a double quote, of at least one token; it may end anywhere.

    What follows it in a ``Series`` is thus told from it: a text in quotes, or a string of JSON.

    Args:
        tokenizer: Of the foundation that generates.
    """

    start = False

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokens = _unquoted(tokenizer)

    def allowed(self, state: bool) -> NDArray[np.int64]:
        """See ``Constraint``; ascending."""
        return self._tokens

    def may_end(self, state: bool) -> bool:
        """See ``Constraint``."""
        return state

    def advance(self, state: bool, token: int) -> bool:
        """See ``Constraint``."""
        return True


class Series:
    """Allows a text of each part, one after the other; parts may be ``TitleTrie`` of one text.

    Where a part may end and may go on as well, both are kept in mind until a token decides.

    Args:
        parts: At least one.

    Raises:
        ConfigError: There is none.
    """

    def __init__(self, parts: Sequence[Constraint[Any]]) -> None:
        if not parts:
            raise ConfigError("a series needs at least one part")
        self._parts = tuple(parts)
        self.start = self._opened({(0, parts[0].start)})

    def allowed(self, state: frozenset[tuple[int, Hashable]]) -> NDArray[np.int64]:
        """See ``Constraint``; ascending."""
        tokens = [self._parts[place].allowed(inner) for place, inner in state]
        return tokens[0] if len(tokens) == 1 else np.unique(np.concatenate(tokens))

    def may_end(self, state: frozenset[tuple[int, Hashable]]) -> bool:
        """See ``Constraint``."""
        last = len(self._parts) - 1
        return any(place == last and self._parts[place].may_end(inner) for place, inner in state)

    def advance(self, state: frozenset[tuple[int, Hashable]], token: int) -> frozenset[tuple[int, Hashable]]:
        """See ``Constraint``."""
        return self._opened(
            {
                (place, self._parts[place].advance(inner, token))
                for place, inner in state
                if token in self._parts[place].allowed(inner)
            }
        )

    def _opened(self, state: set[tuple[int, Hashable]]) -> frozenset[tuple[int, Hashable]]:
        """The state, and the beginning of each part whose one before may end here. No part is empty."""
        ended = {place for place, inner in state if self._parts[place].may_end(inner)}
        return frozenset(
            state | {(place + 1, self._parts[place + 1].start) for place in ended if place + 1 < len(self._parts)}
        )


@lru_cache(maxsize=2)
def _unquoted(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Ids whose text is whole characters of one line, without a double quote or a backslash."""
    control = set(tokenizer.control_ids)
    texts = ((token, tokenizer.decode([token])) for token in range(tokenizer.vocab_size) if token not in control)
    return np.array(
        [token for token, text in texts if text and text.isprintable() and not set(text) & set('"\\\ufffd')]
    )
