"""The wheel and the source distribution hold all that is needed, and nothing else."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta; print(build_meta.build_{kind}({folder!r}))"


def build(kind, source, folder):
    """Builds a distribution of a checkout, as ``pip`` does."""
    code = BUILD.format(kind=kind, folder=str(folder))
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from the source distribution, so that this one is whole as well."""
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "checkout"
    left_out = shutil.ignore_patterns(".*", "runs", "node_modules", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=left_out)
    shutil.unpack_archive(build("sdist", source, folder), folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return build("wheel", unpacked, folder)


def test_the_wheel_holds_the_package_and_its_data(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in inside if ".dist-info/" not in name}
    assert tops == {"m6rec"}
    of_package = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "m6rec").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert of_package <= inside, sorted(of_package - inside)
    assert "m6rec/py.typed" in inside
    assert any(name.endswith("licenses/LICENSE") for name in inside)


def test_it_runs_from_an_empty_folder_without_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    (tmp_path / "events.csv").write_text(
        "user,item,time,title,rating\n"
        + "".join(f"u{n % 5},i{n % 7},{n},Title {n % 7},{n % 5 + 1}\n" for n in range(60))
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "M6REC_HOME": str(tmp_path / "home")}
    for words in (["--version"], ["--help"], ["prepare", "events.csv", "--out", "data"]):
        done = subprocess.run(
            [sys.executable, "-m", "m6rec", *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    where = "import m6rec; print(m6rec.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()).is_relative_to(site)
