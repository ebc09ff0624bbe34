"""What docs/api.md says is so."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from m6rec.data.schema import Limits
from m6rec.serving import settings
from tests import browser, running
from tests.fake import FakeBackend

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "api.md").read_text()
CONTRACT = json.loads((ROOT / "tests" / "golden" / "openapi.json").read_text())
CURLS = re.findall(r"^curl (?:.*\\\n)*.*", TEXT, re.MULTILINE)
SCRIPTS = re.findall(r"```ts\n(.*?)```", TEXT, re.DOTALL)
PROGRAMS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def url():
    backend = FakeBackend()
    backend.users.add("196")
    backend.items |= dict.fromkeys(("50", "172", "2001"), backend.items["i1"])
    with running.service(backend) as where:
        yield where


def test_every_command_works(url, tmp_path):
    assert len(CURLS) >= 10
    for command in CURLS:
        local = command.replace("http://127.0.0.1:8300", url).replace("curl ", "curl -sS --fail-with-body ", 1)
        done = subprocess.run(["bash", "-c", local], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, (command, done.stdout, done.stderr)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.split()[1])
def test_every_program_works(url, program):
    pytest.importorskip(program.split()[1])
    local = program.replace("http://127.0.0.1:8300", url)
    done = subprocess.run([sys.executable, "-c", local], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("program", SCRIPTS)
def test_every_script_fits_the_types_of_the_contract_and_works(url, program, tmp_path):
    if shutil.which("node") is None or not (browser.WEB / "node_modules").is_dir():
        pytest.skip("the examples in TypeScript are not run: make web installs what they need")
    browser.build()
    (tmp_path / "node_modules").symlink_to(browser.WEB / "node_modules")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "right.ts").write_text(program.replace("http://127.0.0.1:8300", url))
    (tmp_path / "wrong.ts").write_text(program.replace("count: 5", 'count: "5"'))
    compiler = ["node_modules/.bin/tsc", "--strict", "--target", "es2022", "--module", "nodenext"]
    done = _run(*compiler, "right.ts", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    done = _run("node", "right.js", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    told = _run(*compiler, "--noEmit", "wrong.ts", cwd=tmp_path).stdout
    assert "Type 'string' is not assignable to type 'number'" in told


def _run(*line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=cwd)


def test_every_path_is_in_the_contract_and_every_path_of_the_contract_is_told():
    operation = {"/metrics", "/healthz", "/readyz"}
    told = set(
        re.findall(r"(?<![\w.:])/(?:v\d/[\w/{}]+|rerank|metrics|healthz|readyz)", TEXT.replace("8300/", "8300 /"))
    )
    told = {path for path in told if not path.startswith(("/v1/users/196", "/v1/items/50", "/v1/export/items"))}
    assert told == set(CONTRACT["paths"]) | operation


def test_every_field_is_in_the_contract():
    names = {name for schema in CONTRACT["components"]["schemas"].values() for name in schema.get("properties", {})}
    section = "\n".join(re.findall(r"## (?:Recommend|Write|Users and erasure)\n.*?(?=\n## )", TEXT, re.DOTALL))
    fields = set(re.findall(r"`([a-z_]+)`", section)) | set(re.findall(r'"([a-z_]+)":', section))
    own = {"year", "device", "age", "city", "search"}  # names of details and contexts, and a kind
    assert fields - own <= names
    assert {"history", "unknown", "accepted", "repeated", "kind", "impression", "context", "details"} <= fields


def test_the_limits_are_those_of_the_service():
    said = TEXT.split("## Limits", 1)[1].split("## Errors", 1)[0].replace(",", "")
    rows = [[int(number) for number in re.findall(r"\d+", row)] for row in said.splitlines() if row.startswith("| ")][
        1:
    ]
    assert rows == [
        [Limits.ID_CHARS],
        [Limits.TITLE_CHARS, Limits.TEXT_CHARS],
        [Limits.KIND_CHARS, Limits.NUM_DETAILS],
        [settings.MAX_WRITES],
        [settings.MAX_TEXTS],
        [settings.Settings().max_body_bytes >> 20],
    ]
    assert Limits.ID_CHARS == Limits.CATEGORY_CHARS
    assert Limits.NUM_DETAILS == Limits.NUM_CATEGORIES
    assert settings.MAX_WRITES == settings.MAX_CANDIDATES == settings.MAX_HISTORY
    assert f"{settings.MAX_QUERY_CHARS:,} characters" in TEXT
    assert f"{settings.MAX_MESSAGES} messages" in TEXT
