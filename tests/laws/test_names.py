"""The names that a program can rely on."""

import inspect

import pytest

import m6rec

NAMES = getattr(m6rec, "__all__", None)
pytestmark = pytest.mark.skipif(NAMES is None, reason="the package has no public names yet")


def test_public_names_are_sorted_and_there():
    assert list(NAMES) == sorted(NAMES)
    assert len(set(NAMES)) == len(NAMES)
    for name in NAMES:
        assert getattr(m6rec, name) is not None
    assert set(NAMES) <= set(dir(m6rec))


def test_public_names_are_documented():
    undocumented = [
        name
        for name in NAMES
        if (inspect.isclass(getattr(m6rec, name)) or inspect.isroutine(getattr(m6rec, name)))
        and not inspect.getdoc(getattr(m6rec, name))
    ]
    assert not undocumented


def test_nothing_else_is_exported():
    scope = {}
    exec("from m6rec import *", scope)
    assert set(scope) - {"__builtins__"} == set(NAMES)
