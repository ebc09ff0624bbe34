"""Actors of Ray, in processes of their own as it starts many, and the command of docs/recipes/ray.md."""

import subprocess
import sys

import pytest

from tests import running, shop

pytest.importorskip("ray")

SCRIPT = """
import os, signal, sys
from pathlib import Path

import pyarrow as pa

from m6rec.errors import DataError
from m6rec.scale import on_ray
from m6rec.scale.partitions import Partitions

folder = Path(sys.argv[1])

class Job:
    def partition(self, number, threads):
        if number == 2 and not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 9:
            raise DataError("nine is odd")
        return pa.table({"number": [number] * number})

out = Partitions(folder, {}, 5)
print(sorted(on_ray.actors(Job, out, 2)(out.missing())))
print(out.missing(), sorted(on_ray.actors(Job, out, 2)(out.missing())))
try:
    list(on_ray.actors(Job, out, 1)([9]))
except DataError as error:
    print(error)
"""


def files(folder):
    return {file.name: file.read_bytes() for file in folder.glob("part-*")}


def test_a_killed_actor_is_made_anew_and_a_failure_is_told(tmp_path):
    words = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    said = subprocess.run(words, env=shop.environment(running.ROOT), capture_output=True, text=True, timeout=300)
    assert [line for line in said.stdout.splitlines() if "(raylet)" not in line] == [
        "[(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]",
        "[] []",
        "nine is odd",
    ], said.stderr
    assert (tmp_path / "killed").exists()


def test_files_are_the_same_bytes_as_of_one_process(tmp_path):
    folder = shop.make(tmp_path / "shop")
    where = ("--data", folder / "data", "--retrieve", folder / "retrieve", "--rank", folder / "click")
    words = ("recommend", "--all", "--partition", "2", "--dtype", "float32", *where)
    shop.m6rec(folder, *words, "--out", tmp_path / "here")
    line = shop.command(*words, "--out", tmp_path / "ray", "--engine", "ray", "--workers", "2")
    subprocess.run(line, env=shop.environment(folder), check=True, timeout=300)
    assert files(tmp_path / "ray") == files(tmp_path / "here")
    assert len(files(tmp_path / "ray")) == 3
