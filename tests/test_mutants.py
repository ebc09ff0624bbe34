"""The planted faults of `make mutants` are still faults of this code, and name tests that are there."""

import ast

import pytest

from scripts.mutants import MUTANTS, ROOT, fault_in


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.file}: {mutant.fault}")
def test_a_fault_can_be_planted(mutant):
    source = (ROOT / "m6rec" / mutant.file).read_text(encoding="utf-8")
    changed = fault_in(mutant, source)
    ast.parse(changed)
    assert changed != source
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert not name or f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), test


def test_faults_are_spread_over_the_rooms():
    assert len(MUTANTS) >= 30
    assert len({mutant.room for mutant in MUTANTS}) >= 15
    with pytest.raises(ValueError, match="has 0 times"):
        fault_in(MUTANTS[0], "")
