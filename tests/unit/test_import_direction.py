"""Data flows one way: each room knows the rooms before it, and the libraries that are its business."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "listcon_eval"
FOUNDATION = {"errors", "records", "files", "progress", "hub"}
# What each room may import of this package; a room not listed may not exist.
MAY_IMPORT = {
    "data": set(),
    "model": set(),
    "inference": {"model"},
    "metrics": set(),
    "results": set(),
    "systems": {"model", "inference", "results"},
    "mteb_adapter": {"data", "inference", "systems"},
    "evaluate": {"data", "systems", "mteb_adapter", "metrics", "results"},
    "compare": {"data", "metrics", "results"},
    "report": {"data", "metrics", "results", "compare"},
    "regression": {"metrics", "results", "compare"},
    "publish": {"data", "metrics", "results", "report"},
    "train": {"data", "model", "inference", "metrics"},
    "speed": {"data", "model", "inference"},
    "cli": {
        "data",
        "model",
        "inference",
        "systems",
        "metrics",
        "results",
        "evaluate",
        "report",
        "compare",
        "regression",
        "publish",
        "train",
        "speed",
    },
}
FOREIGN = {"mteb", "pandas", "torch", "transformers", "typer", "rich"}
MAY_NOT_USE = {
    "data": {"torch", "transformers", "pandas", "typer", "rich"},
    "model": {"mteb", "pandas", "typer", "rich"},
    "inference": {"mteb", "pandas", "typer", "rich"},
    "metrics": {"torch", "transformers", "pandas", "typer", "rich"},
    "results": {"transformers", "pandas", "typer", "rich"},
    "systems": {"pandas", "typer", "rich"},
    "mteb_adapter": {"pandas", "typer", "rich"},
    "evaluate": {"pandas", "typer", "rich"},
    "report": {"torch", "transformers", "mteb", "typer", "rich"},
    "compare": {"torch", "transformers", "mteb", "pandas", "typer", "rich"},
    "regression": {"torch", "transformers", "mteb", "pandas", "typer", "rich"},
    "publish": {"torch", "transformers", "pandas", "typer", "rich"},
    "train": {"mteb", "pandas", "typer", "rich"},
    "speed": {"mteb", "pandas", "typer", "rich"},
}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield f"{node.module}"
            if node.module == "listcon_eval":
                yield from (f"listcon_eval.{alias.name}" for alias in node.names)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return  # the package's front door
    for module in imports(path):
        first, *rest = module.split(".")
        if first == "listcon_eval" and rest:
            allowed = set() if room in FOUNDATION else MAY_IMPORT[room]
            assert rest[0] in allowed | FOUNDATION | {room, "__version__"}, f"{path} imports {module}"
        elif first in FOREIGN:
            assert first not in (FOREIGN if room in FOUNDATION else MAY_NOT_USE.get(room, set())), f"{path}: {module}"


def test_files_stay_small_enough_to_hold_in_the_head() -> None:
    long = {str(path): n for path in PACKAGE.rglob("*.py") if (n := len(path.read_text().splitlines())) > 330}
    assert not long
