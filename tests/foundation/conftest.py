import pytest

from m6rec.foundation import checkpoint
from tests import tiny


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Name of a tiny model → (our foundation, transformers' model)."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            theirs = tiny.hf_folder(name, folder)
            made[name] = checkpoint.load(str(folder), dtype="float32"), theirs
        return made[name]

    return get
