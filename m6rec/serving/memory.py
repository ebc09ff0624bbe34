"""How this process gives memory back: not after every tensor."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST_BLOCK = 32 << 20  # as large as glibc allows
_KEPT = 256 << 20


def keep_freed_memory() -> bool:
    """Tells glibc to keep what is freed, up to 256 MiB; returns whether it listens (other C libraries don't).

    By default it gives a large block back to the system when a tensor ends, and the next tensor meets fresh pages, each
    of which costs a page fault.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {_M_MMAP_THRESHOLD: _LARGEST_BLOCK, _M_TRIM_THRESHOLD: _KEPT, _M_TOP_PAD: _KEPT // 4}
    taken = [mallopt(name, value) for name, value in settings.items()]
    return all(taken)
