from pathlib import Path

from m6rec.features.typescript import typescript_constants


def test_a_browser_has_the_constants_of_this_code():
    """After a change: python -m m6rec.features.typescript > web/src/features.ts."""
    assert (Path(__file__).parents[2] / "web/src/features.ts").read_text(encoding="utf-8") == typescript_constants()
