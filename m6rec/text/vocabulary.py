"""A tokenizer with fewer pieces, which reads the texts of a domain as before and can still read every other text.

Byte pair encoding joins the two neighbours whose merge ranks first, again and again. A merge that was never made while
some texts were read can therefore be taken out without changing how they are read. All bytes stay, so that other texts
are read too, in the same or in smaller pieces.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer as FastTokenizer
from tokenizers import pre_tokenizers

from m6rec.errors import ConfigError
from m6rec.text.tokenizer import Tokenizer

LEAST_BYTES = 128


def trim(tokenizer: Tokenizer, texts: Sequence[str], size: int) -> tuple[Tokenizer, list[int]]:
    """A tokenizer with the pieces that the texts need and the most frequent others.

    Args:
        tokenizer: A byte pair encoding over bytes.
        texts: What is to be read exactly as before.
        size: How many pieces to keep; more where the texts need more.

    Returns:
        The tokenizer, and for each of its ids the id that the piece had.

    Raises:
        ConfigError: The tokenizer is of another kind, so that a text might lose characters.
    """
    raw = json.loads(tokenizer.to_json())
    model = raw["model"]
    vocab: dict[str, int] = model.get("vocab", {}) if model["type"] == "BPE" else {}
    is_fallback = bool(model.get("byte_fallback"))
    # Some vocabularies lack bytes that no text of theirs had; both tokenizers then leave these out.
    bytes_ = vocab.keys() & ({f"<0x{byte:02X}>" for byte in range(256)} if is_fallback else _alphabet())
    if len(bytes_) < LEAST_BYTES:
        raise ConfigError(
            "only a byte pair encoding over bytes can be trimmed; set vocab_size=0 to keep this one whole"
        )
    merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    pieces = {number: piece for piece, number in vocab.items()}
    added = {one["content"] for one in raw["added_tokens"]}
    used = {pieces[number] for row in tokenizer.encode(texts) for number in row if number in pieces}
    made = set().union(*(_merges_of(piece, ranks) for piece in used)) if used else set()
    kept = bytes_ | (added & vocab.keys()) | used | {part for rank in made for part in _parts(merges[rank])}
    for rank, pair in enumerate(merges):  # in order, so that the parts of a merge are there before it
        if len(kept) >= size:
            break
        if kept.issuperset(pair):
            made.add(rank)
            kept.add("".join(pair))
    old = sorted(vocab[piece] for piece in kept)
    new = {number: place for place, number in enumerate(old)}
    model["vocab"] = {pieces[number]: place for number, place in new.items()}
    model["merges"] = [list(merges[rank]) for rank in sorted(made)]
    for one in raw["added_tokens"]:
        if one["id"] not in new:
            new[one["id"]] = len(new)
            old.append(one["id"])
        one["id"] = new[one["id"]]
    return Tokenizer(FastTokenizer.from_str(json.dumps(raw))), old


def _alphabet() -> set[str]:
    return set(pre_tokenizers.ByteLevel.alphabet())


def _parts(pair: tuple[Any, ...]) -> Iterable[str]:
    return (*pair, "".join(pair))


def _merges_of(piece: str, ranks: dict[tuple[Any, ...], int]) -> set[int]:
    """The merges made while a piece is put together. No merge crossed its borders, so it may be read by itself."""
    parts, made = list(piece), set()
    while len(parts) > 1:
        rank, place = min((ranks.get(pair, len(ranks)), place) for place, pair in enumerate(pairwise(parts)))
        if rank == len(ranks):
            break
        made.add(rank)
        parts[place : place + 2] = ["".join(parts[place : place + 2])]
    return made
