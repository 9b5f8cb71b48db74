"""What `make docs` adds to the site: files outside `docs/` as pages, and links to them. mkdocs calls it."""

import os.path
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "listcon_eval/data/mini/README.md": "mini-benchmark.md",
    "listcon_eval/model/mini/README.md": "mini-checkpoint.md",
}
SOURCES = {page: source for source, page in OUTSIDE.items()}
LINK = re.compile(r"\]\((?P<target>[^)#:\s]+\.md)(?=[)#])")


def on_files(files: Files, config: Any) -> Files:  # noqa: ANN401 - mkdocs' own type cannot be named here
    """Add the files outside `docs/`."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn links that work in the repository into links between pages, which all lie in `docs/`."""
    source = PurePosixPath(SOURCES.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def to_page(link: re.Match[str]) -> str:
        in_repository = os.path.normpath(source.parent / link["target"])
        return f"]({OUTSIDE.get(in_repository, in_repository.removeprefix('docs/'))}"

    return LINK.sub(to_page, markdown)
