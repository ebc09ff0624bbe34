"""The command line: one verb a command, ``--json`` on each that reports; a file for each group of verbs."""

from m6rec.cli import data, edge, erasing, init, recommending, runs, serving, tuning  # commands register themselves
from m6rec.cli.app import app, bar, err, guard, main
from m6rec.cli.runs import tuned_runs

__all__ = [
    "app",
    "bar",
    "data",
    "edge",
    "erasing",
    "err",
    "guard",
    "init",
    "main",
    "recommending",
    "runs",
    "serving",
    "tuned_runs",
    "tuning",
]
