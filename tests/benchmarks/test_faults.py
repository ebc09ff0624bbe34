import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tests_of_each_fault_exist():
    found = json.loads((ROOT / "benchmarks" / "faults_of_version_1.json").read_text())
    for fault, names in found.items():
        assert names, fault
        for name in names:
            file, _, test = name.partition("::")
            assert f"def {test.partition('[')[0]}(" in (ROOT / file).read_text(), name
