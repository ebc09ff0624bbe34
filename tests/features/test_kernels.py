import os
import subprocess
import sys

USE = """
import numpy as np

from m6rec.features import kernels

tables = [(np.zeros((sets, 8), np.int64), np.zeros((8 * sets, 5), np.float32)) for sets in (1, 2)]
tables[0][0][0, 3] = 7
print(kernels.grow_pairs(*tables[0], *tables[1]))
"""


FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))"


def run(folder, *parts):
    words = [sys.executable, "-c", "\n".join(parts)]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout


def test_features_are_compiled_on_a_full_disk(tmp_path):
    assert run(tmp_path, FULL, USE) == "1\n"


def test_what_was_compiled_and_cannot_be_read_is_compiled_anew(tmp_path):
    """An index names classes of the version that wrote it."""
    assert run(tmp_path, USE) == "1\n"
    (index,) = tmp_path.rglob("kernels.grow_pairs*.nbi")
    whole = index.read_bytes()
    index.write_bytes(whole[: len(whole) // 2])
    assert run(tmp_path, USE) == "1\n"
    assert len(index.read_bytes()) == len(whole)
