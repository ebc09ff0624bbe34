"""Functions that numba compiles, once for all processes that may write beside the code."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache


class _Cache(FunctionCache):
    """Keeps what is compiled where there is room for it, and compiles anew what can't be read or kept."""

    def load_overload(self, sig: object, target_context: object) -> Any:
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # of whatever kind: a file that was cut off, or one that names classes of an older version
            with suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]
            return None

    def save_overload(self, sig: object, data: object) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


def compiled(function: Callable[..., Any]) -> Any:
    """The function, compiled at its first call; it keeps Python's lock."""
    return _kept(njit(error_model="numpy")(function), function)


def compiled_nogil(function: Callable[..., Any]) -> Any:
    """The same for a function that other threads may run beside: it must change nothing but what it is given."""
    return _kept(njit(error_model="numpy", nogil=True)(function), function)


def _kept(dispatcher: Any, function: Callable[..., Any]) -> Any:
    with suppress(RuntimeError):  # there is no folder that can be written to
        # As its ``enable_caching`` does with numba's own.
        dispatcher._cache = _Cache(function)  # type: ignore[no-untyped-call]
    return dispatcher
