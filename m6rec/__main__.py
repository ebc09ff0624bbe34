"""``python -m m6rec`` is the command ``m6rec``."""

from m6rec.cli import main

if __name__ == "__main__":  # not in the processes that a command starts
    main()
