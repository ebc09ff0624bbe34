"""The command line: one file per group of commands; every command that reports takes ``--json``."""

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
