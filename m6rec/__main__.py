"""``python -m m6rec`` is the command ``m6rec``."""

from m6rec.cli import main

main()
