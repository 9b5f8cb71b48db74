"""What `make docs` adds to the site: files outside `docs/` as pages, and links to them. mkdocs calls it."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "listcon_eval/data/mini/README.md": "mini-benchmark.md",
    "listcon_eval/model/mini/README.md": "mini-checkpoint.md",
}


def on_files(files: Files, config: Any) -> Files:  # noqa: ANN401 - mkdocs' own type cannot be named here
    """Add the files outside `docs/`."""
    for source, page in OUTSIDE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        # Their links are relative to the root; pages lie in `docs/`.
        files.append(File.generated(config, page, content=text.replace("](docs/", "](")))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Turn links to files outside `docs/`, which work in the repository, into links to their pages."""
    for source, page in OUTSIDE.items():
        markdown = markdown.replace(f"](../{source})", f"]({page})")
    return markdown
