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

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special ones included."""
        return self._fast.get_vocab_size(with_added_tokens=True)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without any special token."""
        return [encoding.ids for encoding in self._fast.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special ones left out."""
        return str(self._fast.decode(list(ids), skip_special_tokens=True))
