"""Texts that break tokenizers."""

import unicodedata

import numpy as np

ODD = " \t\n\r'\"\u00a0\u2003\u3000\u0085\u200d\ufeff\u1680\u2028sdtlmrvé01²٣"


def texts(count: int, seed: int = 0) -> list[str]:
    """Characters from everywhere that Python's Unicode assigns, letters, and white space of all kinds, mixed."""
    rng = np.random.default_rng(seed)
    known = [n for n in range(0x110000) if unicodedata.category(chr(n)) not in ("Cs", "Cn")]
    kinds = (
        lambda: chr(known[rng.integers(len(known))]),
        lambda: chr(known[rng.integers(3_000)]),
        lambda: chr(rng.integers(32, 127)),
        lambda: ODD[rng.integers(len(ODD))],
    )
    return ["".join(kinds[rng.integers(4)]() for _ in range(rng.integers(1, 40))) for _ in range(count)]
