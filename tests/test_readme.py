"""The commands that are documented are those that there are."""

import re
import shlex
from pathlib import Path

import pytest

from scripts.figures import prose
from tests.test_cli import flags, unknown

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "web/README.md", "benchmarks/README.md")


def documented():
    """(page, words) of each command in a code block or between backquotes."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        lines = [line for block in blocks for line in block.splitlines()]
        lines += re.findall(r"`([^`\n]+)`", prose(ROOT / page))
        for line in lines:
            if found := re.match(r"(?:\.venv/bin/)?m6rec (.*)", line):
                yield page, shlex.split(found[1], comments=True)


COMMANDS = [(page, " ".join(words), words) for page, words in documented()]


@pytest.mark.parametrize(("page", "command", "words"), COMMANDS, ids=[command for _, command, _ in COMMANDS])
def test_a_documented_command_exists(page, command, words):
    if words[0] != "--help":
        assert unknown(words, flags()) == [], f"{page}: m6rec {command}"


def test_commands_are_found_in_the_pages():
    assert len(COMMANDS) > 25
