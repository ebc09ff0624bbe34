"""Who may import whom: the layers of pyproject.toml hold, and a violation would be seen."""

import pkgutil
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import m6rec
from m6rec import evaluation

ROOT = Path(__file__).parents[2]
PACKAGE = Path(m6rec.__file__).parent
LIGHT = ("types", "errors", "evaluation.metrics", "assets", "data", "text", "language", "domains", "tasks", "device")
HEAVY = ("torch", "transformers", "tensorboard", "faiss", "m6rec.foundation", "m6rec.adapters")


def lint(folder):
    """(exit status, output) of import-linter on the package in a folder."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False, env={"PYTHONPATH": "."}
    )
    return done.returncode, done.stdout + done.stderr


def test_the_layers_hold():
    status, output = lint(ROOT)
    assert status == 0, output


VIOLATIONS = {
    "upwards": (
        "evaluation/metrics/scores.py",
        "import m6rec.adapters",
        "m6rec.evaluation.metrics is not allowed to import m6rec.adapters",
    ),
    "within a room": (
        "evaluation/report.py",
        "import m6rec.evaluation.ranking",
        "m6rec.evaluation.report is not allowed to import m6rec.evaluation.ranking",
    ),
    "beside": ("tasks/like.py", "import m6rec.adapters", "m6rec.tasks is not allowed to import m6rec.adapters"),
    "deferred": (
        "foundation/model.py",
        "def late():\n    from m6rec import readouts",
        "m6rec.foundation is not allowed to import m6rec.readouts",
    ),
    "torch on a device": ("device.py", "import torch", "m6rec.device is not allowed to import torch"),
    "framework": ("serving/batching.py", "import fastapi", "m6rec is not allowed to import fastapi"),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_a_planted_violation_is_seen(tmp_path, violation):
    shutil.copytree(PACKAGE, tmp_path / "m6rec", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    file, line, message = VIOLATIONS[violation]
    with open(tmp_path / "m6rec" / file, "a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")
    status, output = lint(tmp_path)
    assert status == 1, output
    assert message in output


def test_every_module_has_a_layer():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = config["tool"]["importlinter"]["contracts"][0]["layers"]
    named = {name.strip() for layer in layers for name in layer.split("|")}
    rooms = {f"m6rec.{module.name}" for module in pkgutil.iter_modules(m6rec.__path__)} - {"m6rec.__main__"}
    parts = {f"m6rec.evaluation.{module.name}" for module in pkgutil.iter_modules(evaluation.__path__)}
    assert named == rooms - {"m6rec.evaluation"} | parts  # whose metrics are below all that is validated by them


def test_data_and_tasks_come_without_torch():
    """Reading, wording and measuring need no model, so they must not wait for one to load."""
    modules = [
        module.name
        for module in pkgutil.walk_packages(m6rec.__path__, "m6rec.")
        if any(f"{module.name}.".startswith(f"m6rec.{light}.") for light in LIGHT)
    ]
    assert len(modules) > 15
    code = (
        f"import importlib, sys; [importlib.import_module(name) for name in {modules}]; "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


BASE = """
import importlib.metadata, sys
from packaging.requirements import Requirement

def names(extra):
    chosen = [Requirement(text) for text in importlib.metadata.requires("m6rec")]
    return {one.name for one in chosen if one.marker is None or (extra and one.marker.evaluate({"extra": extra}))}

absent = (names("tune") | names("serve") | names("edge")) - names("") - {"m6rec"}
of = importlib.metadata.packages_distributions()
gone = {module for module, dists in of.items() if absent & {dist.lower() for dist in dists}} - {"google"}
assert {"torch", "faiss", "fastapi", "onnx", "scipy"} <= gone

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in gone:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
"""
"""Makes a process as if the base alone were installed, without any extra."""


def base(code, *words):
    """What Python code does where the base alone is installed."""
    line = [sys.executable, "-c", f"{BASE}\n{code}", *words]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_base_has_client_metrics_data_and_the_features_of_a_device():
    names = "client evaluation.metrics device data.read features.interactions hooks cli"
    done = base(f"import importlib; [importlib.import_module('m6rec.' + name) for name in {names.split()}]")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("tune like --data data --foundation nowhere", "tune"),
        ("recommend --project nowhere --user u", None),
        ("serve --data data", "serve"),
        ("device rank nowhere", None),
        ("export nowhere --out there", "tune"),
    ],
)
def test_what_needs_an_extra_says_how_to_install_it(command, extra):
    done = base("from m6rec.cli import main; main()", *command.split())
    assert done.returncode == 2, done.stderr
    if extra:
        assert f"pip install 'm6rec[{extra}]'" in done.stderr.replace("\n", " ")


def test_a_name_of_the_package_that_needs_an_extra_says_how_to_install_it():
    done = base("import m6rec; m6rec.ScoreModel")
    assert (
        "ExtraError: m6rec.ScoreModel needs an optional dependency. Install it: pip install 'm6rec[tune]'"
        in done.stderr
    )


def test_importing_the_package_loads_nothing_else():
    """`import m6rec` takes milliseconds: what a name needs is imported when the name is first used."""
    code = "import sys; before = set(sys.modules); import m6rec; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "m6rec" in loaded
    assert loaded - sys.stdlib_module_names == {"m6rec"}


def test_the_lock_file_is_of_these_dependencies():
    """`uv.lock` was made from what pyproject.toml asks for; `uv lock` makes it anew."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    locked = {package["name"]: package for package in lock["package"]}
    asked = {
        (one["name"], one.get("specifier", ""))
        for one in locked["m6rec"]["metadata"]["requires-dist"]
        if one["name"] != "m6rec"
    }
    extras = project["optional-dependencies"].values()
    wanted = {Requirement(text) for texts in (project["dependencies"], *extras) for text in texts}
    assert asked == {(one.name, str(one.specifier)) for one in wanted if one.name != "m6rec"}
    assert {name for name, _ in asked} <= set(locked)
