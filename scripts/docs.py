"""What `make docs` does beside mkdocs: links to files beside docs/ say where these are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./(?:\.\./)*([^)#]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Turns links to files that the site doesn't have, such as a design note, into their paths."""
    return _OUTSIDE.sub(lambda link: _outside(link, Path(config.docs_dir), Path(page.file.src_path)), markdown)


def _outside(link: re.Match[str], root: Path, page: Path) -> str:
    target = (root / page.parent / link[0].rpartition("](")[2].rstrip(")").partition("#")[0]).resolve()
    if not target.is_relative_to(root.parent) or target.is_relative_to(root) or not target.exists():
        return link[0]  # mkdocs checks it
    path = str(target.relative_to(root.parent))
    return f"`{path}`" if link[1].strip("`") == path else f"{link[1]} (`{path}`)"
