"""The command line: one file per group of commands; every command that reports takes ``--json``."""

from m6rec.cli import (  # commands register themselves
    backing_up,
    config,
    data,
    doctor,
    edge,
    erasing,
    init,
    planning,
    recommending,
    runs,
    serving,
    tuning,
)
from m6rec.cli.app import app, bar, err, guard, main
from m6rec.cli.runs import tuned_runs

__all__ = [
    "app",
    "backing_up",
    "bar",
    "config",
    "data",
    "doctor",
    "edge",
    "erasing",
    "err",
    "guard",
    "init",
    "main",
    "planning",
    "recommending",
    "runs",
    "serving",
    "tuned_runs",
    "tuning",
]
