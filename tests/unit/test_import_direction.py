"""Data flows one way: each room knows the rooms before it, and the libraries that are its business."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "listcon_eval"
FOUNDATION = {"errors", "records", "files", "progress", "hub"}
# What each room may import of this package; a room not listed may not exist.
MAY_IMPORT = {
    "tasks": set(),
    "model": set(),
    "inference": {"model"},
    "measures": set(),
    "runs": set(),
    "kinds": {"model", "inference", "runs"},
    "adapters": {"tasks", "inference", "kinds"},
    "evaluation": {"tasks", "kinds", "adapters", "measures", "runs"},
    "comparison": {"tasks", "measures", "runs"},
    "reports": {"tasks", "measures", "runs", "comparison"},
    "gates": {"measures", "runs", "comparison"},
    "submission": {"tasks", "measures", "runs", "reports"},
    "training": {"tasks", "model", "inference", "measures"},
    "benchmark": {"tasks", "model", "inference"},
    "cli": {
        "tasks",
        "model",
        "inference",
        "kinds",
        "measures",
        "runs",
        "evaluation",
        "reports",
        "comparison",
        "gates",
        "submission",
        "training",
        "benchmark",
    },
}
FOREIGN = {"mteb", "pandas", "torch", "transformers", "typer", "rich"}
MAY_NOT_USE = {
    "tasks": {"torch", "transformers", "pandas", "typer", "rich"},
    "model": {"mteb", "pandas", "typer", "rich"},
    "inference": {"mteb", "pandas", "typer", "rich"},
    "measures": {"torch", "transformers", "pandas", "typer", "rich"},
    "runs": {"transformers", "pandas", "typer", "rich"},
    "kinds": {"pandas", "typer", "rich"},
    "adapters": {"pandas", "typer", "rich"},
    "evaluation": {"pandas", "typer", "rich"},
    "reports": {"torch", "transformers", "mteb", "typer", "rich"},
    "comparison": {"torch", "transformers", "mteb", "pandas", "typer", "rich"},
    "gates": {"torch", "transformers", "mteb", "pandas", "typer", "rich"},
    "submission": {"torch", "transformers", "pandas", "typer", "rich"},
    "training": {"mteb", "pandas", "typer", "rich"},
    "benchmark": {"mteb", "pandas", "typer", "rich"},
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
