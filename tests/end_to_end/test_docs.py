"""The documentation does what it says: outputs are what commands print now, and commands that are not run are ones."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

import docs_outputs
from listcon_eval.cli.app import app
from listcon_eval.results import records

PAGES = [path for path in docs_outputs.documents() if path.suffix == ".md"]


@pytest.mark.parametrize("path", docs_outputs.documents(), ids=lambda path: path.name)
def test_outputs_are_what_is_printed_now(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown, now = path.read_text(encoding="utf-8"), docs_outputs.refreshed(path)
    assert docs_outputs.normalised(now) == docs_outputs.normalised(shown), f"run `make docs-outputs` ({path.name})"


def commands(path: Path) -> Iterator[list[str]]:
    """The arguments of every `listcon-eval` in a page's blocks that are not run."""
    for language, _, body in docs_outputs.blocks(path.read_text(encoding="utf-8")):
        if language == "bash":
            for line in body.replace("\\\n", " ").splitlines():
                words = shlex.split(line.partition(" | ")[0], comments=True)
                if Path(words[0] if words else "").name == "listcon-eval" and not words[1].startswith("-"):
                    yield words[1:]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_that_are_not_run_have_options_that_exist(path: Path) -> None:
    for words in commands(path):
        command, context, left = get_command(app), None, words
        while isinstance(command, TyperGroup):
            context = command.make_context("listcon-eval", list(left), parent=context, resilient_parsing=True)
            name, found, left = command.resolve_command(context, left)
            assert found is not None, name
            command = found
        command.make_context("listcon-eval", list(left), parent=context)  # an unknown option raises


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_files_that_a_page_names_are_there(path: Path) -> None:
    root = docs_outputs.ROOT
    folders = [root / name for name in ("listcon_eval", "scripts", "tests")]
    files = [*root.glob("*.py"), *(file for folder in folders for file in folder.rglob("*.py"))]
    for name in re.findall(r"`([\w/]+\.py)`", path.read_text(encoding="utf-8")):
        assert any(str(file).endswith(f"/{name}") for file in files), name


def test_every_verb_is_on_the_page_of_options() -> None:
    page = (docs_outputs.ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    commands = get_command(app)
    assert isinstance(commands, TyperGroup)
    for verb, own in commands.commands.items():
        verbs = [f"{verb} {part}" for part in own.commands] if isinstance(own, TyperGroup) else [verb]
        assert all(f"$ listcon-eval {found} --help\n" in page for found in verbs), verb


def test_every_field_of_the_result_files_is_described() -> None:
    for own in docs_outputs.RECORDS.values():
        for record in own:
            assert all(field.description for field in record.model_fields.values()), record
    described = {record for own in docs_outputs.RECORDS.values() for record in own}
    assert described == {
        kind
        for kind in vars(records).values()
        if isinstance(kind, type) and kind.__module__ == records.__name__ and kind is not records.Record
    }
