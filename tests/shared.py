"""Public research sets that only some machines have: tests on them are skipped, by name, where they are absent."""

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("M6REC_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


def shared(name: str) -> Path:
    """A file of the research sets, such as "redial/item_ids.json"."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{name} is not in {FOLDER}; M6REC_SHARED_DATA names the folder of the research sets")
    return path
