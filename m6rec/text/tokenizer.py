"""Text ↔ token ids, through the tokenizer that came with the foundation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer as FastTokenizer

from m6rec.errors import AssetError


class Tokenizer:
    """A foundation's tokenizer that reads every text as data.

    A control token spelled out in a title ("<|im_end|>") becomes ordinary pieces, so no item and no user can
    close a region or open a turn.
    """

    def __init__(self, fast: FastTokenizer) -> None:
        self._fast = fast
        self._fast.encode_special_tokens = True
        self._fast.no_padding()
        self._fast.no_truncation()

    @classmethod
    def open(cls, folder: Path) -> Tokenizer:
        """Reads ``tokenizer.json`` of a foundation's folder.

        Raises:
            AssetError: The file is absent or not a tokenizer.
        """
        path = folder / "tokenizer.json"
        try:
            return cls(FastTokenizer.from_file(str(path)))
        except Exception as error:
            raise AssetError(f"no readable tokenizer at {path}: {error}; give a folder that holds one") from error

    def save(self, file: Path) -> None:
        """Writes what ``open`` reads, under any name."""
        self._fast.save(str(file), pretty=False)

    def to_json(self) -> str:
        """What ``save`` writes."""
        return str(self._fast.to_str())

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special ones included."""
        return self._fast.get_vocab_size(with_added_tokens=True)

    @property
    def control_ids(self) -> list[int]:
        """Ids of the control tokens, which no text is encoded to."""
        return [token for token, added in self._fast.get_added_tokens_decoder().items() if added.special]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without any special token."""
        return [encoding.ids for encoding in self._fast.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special ones left out."""
        return str(self._fast.decode(list(ids), skip_special_tokens=True))


class TextStream:
    """Text of tokens that come one by one; it ends before the first stop string.

    Args:
        tokenizer: Whose ids they are.
        before: What the text goes on from, since some tokenizers drop a space at the beginning.
        stops: The stop strings, none of them empty.

    Attributes:
        text: All of it, in whole characters.
        stopped: Whether a stop string has come.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int], stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        # Ids from the last but one place where a character was whole, and how many of them come before the last one.
        self._ids, self._num_read = list(before[-1:]), len(before[-1:])
        self.text, self.stopped = "", False

    @property
    def safe(self) -> str:
        """``text`` without an end that may grow into a stop string."""
        if self.stopped:
            return self.text
        longest = max(map(len, self._stops), default=0)
        for size in range(min(longest - 1, len(self.text)), 0, -1):
            if any(stop.startswith(self.text[-size:]) for stop in self._stops):
                return self.text[:-size]
        return self.text

    def add(self, token: int) -> None:
        """Takes the next token."""
        self._ids = [*self._ids, token]  # not in place: beams copy what they go on from
        read, decoded = self._tokenizer.decode(self._ids[: self._num_read]), self._tokenizer.decode(self._ids)
        if decoded.endswith("\ufffd"):  # bytes of a character that isn't whole
            return
        self.text += decoded[len(read) :]
        self._ids, self._num_read = self._ids[self._num_read :], len(self._ids) - self._num_read
        found = [place for stop in self._stops if (place := self.text.find(stop)) >= 0]
        if found:
            self.text, self.stopped = self.text[: min(found)], True
