"""What a generated text may be: rules that allow some tokens after each beginning."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import groupby
from typing import Protocol, TypeVar

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

    A text that another one begins with can be chosen as well: there the model decides between its end-of-text token and
    going on. Texts that end in what follows them in the prompt, such as a closing quotation mark, make that choice
    easier for it. A node takes 17 bytes.

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
