"""How much one has to read at once: no file and no class of the package grows beyond a limit."""

import ast
from pathlib import Path

import m6rec

PACKAGE = Path(m6rec.__file__).parent
MOST_LINES = 600
"""Of a file."""
MOST_CLASS_LINES = 250


def lines_of(node: ast.ClassDef) -> int:
    """Lines of a class, with its decorators."""
    return (node.end_lineno or 0) - min([node.lineno, *(one.lineno for one in node.decorator_list)]) + 1


def too_long(source):
    """What of a module's source is beyond a limit, with its number of lines."""
    classes = {node.name: lines_of(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)}
    found = {name: lines for name, lines in classes.items() if lines > MOST_CLASS_LINES}
    lines = len(source.splitlines())
    return found | ({"the file": lines} if lines > MOST_LINES else {})


def test_no_file_and_no_class_is_too_long():
    found = {str(file.relative_to(PACKAGE)): too_long(file.read_text("utf-8")) for file in PACKAGE.rglob("*.py")}
    assert len(found) > 200
    assert not {file: beyond for file, beyond in found.items() if beyond}


def test_a_planted_violation_is_seen():
    def a_class(lines):
        return "@final\nclass Planted:\n" + "    x = 1\n" * (lines - 2)

    assert too_long(a_class(MOST_CLASS_LINES)) == {}
    assert too_long(a_class(MOST_CLASS_LINES + 1)) == {"Planted": MOST_CLASS_LINES + 1}
    assert too_long("x = 1\n" * MOST_LINES) == {}
    assert too_long("x = 1\n" * (MOST_LINES + 1)) == {"the file": MOST_LINES + 1}
