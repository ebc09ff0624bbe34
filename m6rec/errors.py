"""Everything that m6rec raises on purpose.

    M6RecError
    ├── DataError      a log, a table or a text is not what was promised (also a ValueError)
    ├── UnknownError   there is no user or item of that id (also a LookupError)
    ├── ConfigError    an option or a combination of options is not allowed (also a ValueError)
    ├── AssetError     a model or a data set is missing, unreachable or damaged
    ├── ExtraError     an optional dependency is not installed
    └── StoreError     states, events or items can't be read from or written to where they are kept

A message says what was given, what is allowed and what to do. A broken invariant of our own
is an ``assert``, never one of these.
"""


class M6RecError(Exception):
    """Base of all errors that a user can act on; the command line prints it without a trace."""


class DataError(M6RecError, ValueError):
    """Input data are malformed; the message names the row and the column where there is one."""


class UnknownError(M6RecError, LookupError):
    """An id is well-formed, but nothing has it; the message names it."""


class ConfigError(M6RecError, ValueError):
    """An option is out of range, unknown, or clashes with another."""


class AssetError(M6RecError):
    """A named model or data set can't be found, fetched, verified or read."""


class ExtraError(M6RecError):
    """A feature needs an optional dependency; the message is its install line."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency. Install it: pip install 'm6rec[{extra}]'")


_EXTRAS = {
    **dict.fromkeys(
        (
            "accelerate", "faiss", "gguf", "implicit", "lmdb", "matplotlib", "pyroaring", "scipy", "sentencepiece",
            "tensorboard", "threadpoolctl", "torch", "transformers",
        ),
        "tune",
    ),
    "ray": "ray",
    **dict.fromkeys(("fastapi", "prometheus_client", "redis", "uvicorn"), "serve"),
}  # fmt: skip
"""Extra that brings a package which rooms import as a matter of course; the base install has none of them."""


def missing(error: ModuleNotFoundError, feature: str) -> ExtraError | None:
    """What to say where an import failed because of an extra that is not installed; None where it is another module."""
    extra = _EXTRAS.get((error.name or "").partition(".")[0])
    return ExtraError(feature, extra) if extra else None


class StoreError(M6RecError):
    """A store can't be opened, read or written: the disk is full or damaged, or a server doesn't answer."""
