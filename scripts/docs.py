"""What `make docs` does beside mkdocs: no page is lost, and links to files beside docs/ say where these are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LAST = "Inside"
"""The section of pages that the nav of mkdocs.yml doesn't name."""
_OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./(?:\.\./)*([^)#]+)(?:#[^)]*)?\)")


def on_config(config: Any) -> Any:
    """Puts the pages that the nav doesn't name into a section of their own."""
    root = Path(config.docs_dir)
    named = set(_pages(config.nav))
    rest = sorted(str(page.relative_to(root)) for page in root.rglob("*.md"))
    if unnamed := [page for page in rest if page not in named]:
        config.nav = [*config.nav, {LAST: unnamed}]
    return config


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Turns links to files that the site doesn't have, such as a design note, into their paths."""
    return _OUTSIDE.sub(lambda link: _outside(link, Path(config.docs_dir), Path(page.file.src_path)), markdown)


def _outside(link: re.Match[str], root: Path, page: Path) -> str:
    target = (root / page.parent / link[0].rpartition("](")[2].rstrip(")").partition("#")[0]).resolve()
    if not target.is_relative_to(root.parent) or target.is_relative_to(root) or not target.exists():
        return link[0]  # mkdocs checks it
    path = str(target.relative_to(root.parent))
    return f"`{path}`" if link[1].strip("`") == path else f"{link[1]} (`{path}`)"


def _pages(nav: Any) -> Iterator[str]:
    for entry in nav.values() if isinstance(nav, dict) else nav:
        if isinstance(entry, str):
            yield entry
        else:
            yield from _pages(entry)
