import os
import subprocess
import sys
from pathlib import Path

from m6rec.features import layout


def test_what_was_compiled_for_an_older_layout_is_dropped():
    """Numba can't read it where a class has had another name since."""
    old = Path(layout.__file__).parent / "__pycache__" / "kernels.walk-1.py0.nbi"
    old.write_bytes(b"of another layout")
    os.utime(old, (0, 0))
    subprocess.run([sys.executable, "-c", "import m6rec.features.kernels"], check=True)
    assert not old.exists()


FULL = """
import resource

import numpy as np

from m6rec.features import kernels

resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
tables = [(np.zeros((sets, 8), np.int64), np.zeros((8 * sets, 5), np.float32)) for sets in (1, 2)]
tables[0][0][0, 3] = 7
print(kernels.grow_pairs(*tables[0], *tables[1]))
"""


def test_features_are_compiled_on_a_full_disk(tmp_path):
    words = [sys.executable, "-c", FULL]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    assert subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout == "1\n"
