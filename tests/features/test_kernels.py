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
