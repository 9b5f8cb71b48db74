"""Data flows one way: each package knows the packages before it, and the libraries that are its business."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "listcon_eval"
FOUNDATION = {
    "arguments",
    "errors",
    "records",
    "ordering",
    "files",
    "progress",
    "hub",
    "mteb_compat",
    "tables",
    "workers",
}
# What each package may import of the others; one that is not listed may not exist.
MAY_IMPORT = {
    "data": set(),
    "model": set(),
    "inference": {"model"},
    "systems": {"data", "model", "inference"},
    "metrics": set(),
    "results": set(),
    "evaluation": {"data", "inference", "systems", "metrics", "results"},
    "mteb_adapter": {"data", "inference", "systems", "metrics"},
    "comparison": {"data", "metrics", "results"},
    "regression": {"metrics", "results", "comparison"},
    "report": {"data", "metrics", "results", "comparison"},
    "publish": {"data", "metrics", "results", "report", "model"},
    "train": {"data", "model", "inference", "metrics", "systems"},
    "speed": {"data", "model", "inference", "metrics"},
    "sweep": {"data", "inference", "systems", "metrics", "evaluation", "speed"},
}
MAY_IMPORT["cli"] = set(MAY_IMPORT)
FOREIGN = {"mteb", "pandas", "torch", "transformers", "typer", "rich", "ray"}
# The libraries that each package may use; of the foundation, three files use one each.
MAY_USE = {
    "mteb_compat": {"mteb"},
    "workers": {"ray"},
    "evaluation": {"torch"},
    "data": {"mteb", "pandas"},
    "model": {"torch", "transformers"},
    "inference": {"torch", "transformers"},
    "systems": {"mteb", "torch", "transformers"},
    "results": {"pandas", "torch"},
    "comparison": {"pandas"},
    "mteb_adapter": {"mteb"},
    "report": {"pandas"},
    "publish": {"mteb"},
    "tables": {"rich"},
    "train": {"torch", "transformers"},
    "speed": {"torch", "transformers"},
    "sweep": {"torch"},
    "cli": {"torch", "typer", "rich"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield f"{node.module}"
            if f"{node.module}".startswith("listcon_eval"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)  # modules or names in one


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    part = part_of(path)
    if part in ("__init__", "__main__"):
        return  # the package's front doors
    for module in imports(path):
        first, *rest = module.split(".")
        if first == "listcon_eval" and rest:
            allowed = set() if part in FOUNDATION else MAY_IMPORT[part]
            assert rest[0] in allowed | FOUNDATION | {part, "__version__"}, f"{path} imports {module}"
        elif first in FOREIGN:
            assert first in MAY_USE.get(part, set()), f"{path} imports {module}"


def test_no_circles_between_files() -> None:
    """Imports at the top of files and for annotations make no circle."""
    modules = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in FILES}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    del modules["listcon_eval"]  # the front door imports its public names when they are asked for
    # `from listcon_eval.cli import run` needs the file run.py; the package it is in comes along.
    packages = {name for name, path in modules.items() if path.name == "__init__.py"}
    needs = {}
    for name, path in modules.items():
        found = [module for module in imports(path) if module in modules]
        submodules = [module for module in found if any(module.startswith(f"{package}.") for package in found)]
        needs[name] = {
            module
            for module in found
            if module not in packages or module not in {s.rpartition(".")[0] for s in submodules}
        } - {name}
    # A package's `__init__` collects names of its files; files of the package do not import from it.
    state: dict[str, int] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if state.get(name) == 2:
            return
        assert state.get(name) != 1, f"a circle: {' -> '.join((*trail[trail.index(name) :], name))}"
        state[name] = 1
        for needed in sorted(needs[name]):
            visit(needed, (*trail, name))
        state[name] = 2

    for name in sorted(needs):
        visit(name, ())


def test_names_of_mteb_with_an_underscore_are_in_one_file() -> None:
    for path in FILES:
        if path.name != "mteb_compat.py":
            private = [name for name in imports(path) if name.startswith("mteb.") and "._" in name]
            assert not private, f"{path} imports {private}"
