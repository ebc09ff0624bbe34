"""The documentation is true: what it says to type works, what it links to is there, its figures are those measured."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from benchmarks import logs
from m6rec import assets
from m6rec.foundation import checkpoint
from scripts import figures
from tests import pages, tiny
from tests.pages import DOCS
from tests.running import ROOT
from tests.shop import m6rec
from tests.test_cli import flags, unknown

PAGES = pages.pages()
NAMES = [str(page.relative_to(DOCS)) for page in PAGES]
ELSEWHERE = {"api.md": "tests/serving/test_api_docs.py", "ray.md": "tests/scale/test_on_ray.py"}
"""Pages whose blocks another test runs."""
MOST_NOT_RUN = 16
"""Blocks that aren't run; whoever adds one shall find out whether it could be."""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project of a log of stars, on a tiny foundation that stands in for the default one."""
    folder = tmp_path_factory.mktemp("project")
    tiny.hf_folder("llama", folder / "foundation")
    with pytest.MonkeyPatch.context() as patched:
        real = checkpoint.locate

        def locate(source, **options):
            return folder / "foundation" if source == assets.DEFAULT_FOUNDATION else real(source, **options)

        patched.setattr(checkpoint, "locate", locate)
        m6rec(folder, "init", *logs.stars(folder, num_events=500), "--project", folder / "shop", "--dtype", "float32")
        yield folder / "shop"


@pytest.mark.parametrize("page", [page for page in PAGES if pages.parts(page)], ids=lambda page: page.stem)
def test_every_block_of_a_page_runs(page, project, tmp_path, monkeypatch):
    found = pages.parts(page)
    if page.name in ELSEWHERE:
        assert page.name in (ROOT / ELSEWHERE[page.name]).read_text()
        return
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("M6REC_HOME", str(project.parent / "home"))
    monkeypatch.delenv("M6REC_PROJECT", raising=False)
    with pages.reading(tmp_path, project) as reader:
        for part in found:
            try:
                reader.run(part)
            except Exception as error:
                raise AssertionError(f"{page.relative_to(ROOT)}, line {part.line}: {error}") from error


@pytest.mark.parametrize(
    "block",
    [
        "```bash\nm6rec prepar events.csv\n```",
        "```bash\nm6rec prepare missing.csv --out data\n```",
        "```bash\nls missing\n```",
        "```python\nimport m6rec\nm6rec.Missing\n```",
        "<!-- given: stars events.csv -->\n```bash\nm6rec prepare events.csv --out data --no-such-option\n```",
    ],
)
def test_a_page_that_is_wrong_fails(block, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{block}\n")
    monkeypatch.chdir(tmp_path)
    *given, wrong = pages.parts(page)
    with pages.reading(tmp_path, tmp_path) as reader:
        for part in given:
            reader.run(part)
        with pytest.raises((AssertionError, AttributeError)):
            reader.run(wrong)


def test_blocks_say_what_they_are_and_few_are_not_run():
    left_out = []
    for page in PAGES:
        for part in pages.parts(page):
            where = f"{page.relative_to(ROOT)}, line {part.line}"
            assert not part.language or part.language in (*pages.RUN, *pages.SHOWN), f"{where}: {part.language!r}"
            assert "```" not in part.body, where
            if part.reason:
                assert part.reason in pages.REASONS, where
                assert part.language in pages.RUN, where
                left_out.append(where)
        fences = len(re.findall(r"^ *```", page.read_text(), re.MULTILINE))
        assert fences == 2 * sum(bool(part.language) for part in pages.parts(page)), f"{page}: a block has no language"
    assert len(left_out) <= MOST_NOT_RUN, left_out


COMMANDS = [
    (f"{name}, line {part.line}", words)
    for name, page in [*zip(NAMES, PAGES, strict=True), ("README.zh.md", ROOT / "README.zh.md")]
    for part in pages.parts(page)
    if part.language in ("bash", "none")
    for line in pages.lines(part.body)
    if (words := pages.words_of(line)) is not None
]


@pytest.mark.parametrize(("where", "words"), COMMANDS, ids=[f"{where}: {' '.join(words)}" for where, words in COMMANDS])
def test_a_command_of_a_block_is_complete(where, words):
    """Its options are known, their values are of the right type, and no argument is missing."""
    command, rest = pages.command(words)
    command.make_context(words[0], rest)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.zh.md"], ids=[*NAMES, "README.zh.md"])
def test_a_command_in_a_sentence_exists(page):
    known = flags()
    for said in re.findall(r"`m6rec ([^`]+)`", figures.prose(page)):
        named = [word for word in said.split()[:2] if not word.startswith("--")]
        if said.startswith("--"):
            continue
        options = re.findall(r"(?<=\s)--[\w-]+", said)
        groups = [] if options else [["assets"], ["device"]]
        assert unknown([*named, *options], known) in ([], *groups), said


def test_targets_and_extras_that_are_told_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    extras = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    for page in [*PAGES, ROOT / "README.zh.md"]:
        text = page.read_text()
        assert set(re.findall(r"(?:^|`)make ([\w-]+)", text, re.MULTILINE)) <= targets, page
        for named in re.findall(r"m6rec\[([\w,]+)\]", text):
            assert set(named.split(",")) <= extras, page


# Figures


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=[*NAMES, "README.md"])
def test_figures_are_those_measured(page):
    assert figures.stale(page) == [], "python -m scripts.figures writes the tables anew; sentences are yours to mend"


def test_a_figure_that_nobody_measured_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- figures: durability.json -->\nOf 1 000 trials, 0.123 were lost.\n\nAUC .712 it has.\n")
    assert [told.partition(":")[0] for told in figures.stale(page)] == ["0.123", ".712"]
    where = "<!-- figures: evidence.json | Likes, ml1m_collm | AUC -->"
    page.write_text(f"{where}\n| method | AUC |\n|---|---|\n| ours | 1.0 |\n")
    assert len(figures.stale(page)) == 1
    figures.write(page)
    assert "EASE | 0.6427" in page.read_text()
    assert figures.stale(page) == []


# The site


class _Assets(HTMLParser):
    """What a page loads without being asked."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.classes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.classes |= set((given.get("class") or "").split())
        if tag == "link" and given.get("rel") in ("canonical", "alternate", "prev", "next"):
            return
        names = ("href",) if tag == "link" else ("src", "srcset", "data", "poster", "action")
        self.loaded += [given[name] for name in names if given.get(name)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_loads_nothing_of_another_origin(site):
    elsewhere = re.compile(r"^(?:\w+:)?//")
    found = sorted(site.rglob("*.html"))
    assert len(found) > len(PAGES) - 1
    for page in found:
        loaded = _Assets(page.read_text())
        assert [one for one in loaded.loaded if elsewhere.match(one)] == [], page
        assert "mermaid" not in loaded.classes, "the theme fetches mermaid for such a block"
    for sheet in site.rglob("*.css"):
        named = re.findall(r"(?:url\(\s*['\"]?|@import\s+['\"])([^'\")]+)", sheet.read_text())
        assert [one for one in named if elsewhere.match(one)] == [], sheet


def test_what_a_page_loads_is_seen():
    loaded = _Assets(
        '<script src="https://a/b.js"></script><link rel=stylesheet href="//c/d"><a href="https://e">'
    ).loaded
    assert loaded == ["https://a/b.js", "//c/d"]


def test_every_page_of_the_nav_has_a_title_of_its_own(site):
    titles = [re.search(r"<title>(.*?)</title>", page.read_text())[1] for page in site.rglob("*.html")]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "README.zh.md"], ids=lambda page: page.name)
def test_links_to_files_are_not_dead(page):
    """On GitHub, too, where no hook mends them."""
    for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", figures.prose(page)):
        assert (page.parent / target).exists(), target
