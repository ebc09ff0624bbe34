"""One name, one thing: no public class or function name stands for two things in the package."""

import ast
import textwrap
from collections import defaultdict
from pathlib import Path

import m6rec

PACKAGE = Path(m6rec.__file__).parent

IDIOMS = {
    "create": "makes what the module is about, as in torch and pathlib",
    "fit": "the verb of scikit-learn",
    "load": "the counterpart of save",
    "parse": "text to the value that the module is about",
    "read": "a source to the value that the module is about",
    "save": "the counterpart of load",
}
"""Function names that may recur, as a module is part of how they are called (``task.named``), and why."""

HOOKS = ("domains", "tasks")
"""Rooms of plug-ins: their functions fill the fields of a ``Domain`` or a ``Task`` and are named after them."""

FRONT = ("cli",)
"""A command is named after the function that it runs."""


def definitions(package: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Where each public class is defined, nested ones too, and each public function of a module."""
    classes, functions = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for file in sorted(package.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        where = str(file.relative_to(package))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes[node.name].append(where)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
                functions[node.name].append(where)
    return classes, functions


def clashes(package: Path) -> dict[str, list[str]]:
    """Names of two things: classes, or functions that no reason excuses."""
    classes, functions = definitions(package)
    found = {name: places for name, places in classes.items() if len(places) > 1}
    found |= {name: places for name, places in recurring(functions).items() if name not in IDIOMS}
    return found


def recurring(functions: dict[str, list[str]]) -> dict[str, list[str]]:
    """Functions of one name, hooks and commands left out."""
    counted = {
        name: [place for place in places if place.split("/")[0] not in FRONT + HOOKS]
        for name, places in functions.items()
    }
    return {name: places for name, places in counted.items() if len(places) > 1}


def test_no_public_name_stands_for_two_things():
    assert clashes(PACKAGE) == {}


def test_no_class_and_function_share_a_name():
    classes, functions = definitions(PACKAGE)
    assert not set(classes) & set(functions)


def test_every_idiom_is_needed():
    _, functions = definitions(PACKAGE)
    assert set(IDIOMS) <= set(recurring(functions))


def test_a_planted_clash_is_seen(tmp_path):
    for name, code in {
        "a.py": "class Row: ...\ndef load(): ...\ndef rank(): ...",
        "b.py": "class Row: ...\ndef load(): ...\ndef rank(): ...\nclass _Own: ...",
        "cli/c.py": "def rank(): ...\nclass _Own: ...",
        "tasks/d.py": "def label(): ...",
        "tasks/e.py": "def label(): ...",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(code))
    assert clashes(tmp_path) == {"Row": ["a.py", "b.py"], "rank": ["a.py", "b.py"]}
