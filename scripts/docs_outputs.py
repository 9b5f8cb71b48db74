"""Run what the documentation shows, and put what it prints into it: `python scripts/docs_outputs.py [FILE ...]`.

The blocks of a page are taken in order, in one empty folder and one Python namespace:

- a block whose title is a file name is written to that file;
- `console`: each line after `$ ` is run, and the lines after it become what it prints;
- `python` is run, and what it prints becomes the `text` block with the title Output after it;
- any other block is left alone.

A notebook's code cells are run likewise. `docs/result-fields.md` is written from the typed records of result files.
A test does the same and compares (`tests/end_to_end/test_docs.py`).
"""

import ast
import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from typer.testing import CliRunner

from listcon_eval.cli.app import app
from listcon_eval.results import records

ROOT = Path(__file__).resolve().parents[1]
FIELDS = ROOT / "docs" / "result-fields.md"
_BLOCK = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<body>.*?)^```$', re.MULTILINE | re.DOTALL
)
# What another machine, another version of a library or of this code prints otherwise: keys, hashes, versions, devices,
# and with them the widths of columns.
_VARIES = (
    (re.compile(r"(?<=__)[0-9a-f]{8}\b"), "KEY"),
    (re.compile(r"\bsha256-[0-9a-f]+"), "HASH"),
    (re.compile(r"\b\d+\.\d+\.\d+[\w.+]*"), "VERSION"),
    (re.compile(r"cpu \([^)]*\)"), "CPU"),
    (re.compile(r"-{3,}"), "---"),
    (re.compile(r"[ \t]+"), " "),
)


def documents() -> list[Path]:
    """The pages and notebooks that are run."""
    return [ROOT / "README.md", *sorted({*ROOT.glob("docs/*.md"), FIELDS}), *sorted(ROOT.glob("examples/*.ipynb"))]


def blocks(text: str) -> Iterator[tuple[str, str | None, str]]:
    """Language, title and body of every fenced block of a page."""
    for found in _BLOCK.finditer(text):
        yield found["language"], found["title"], found["body"]


def normalised(text: str) -> str:
    """A page without what may differ between two machines."""
    for pattern, name in _VARIES:
        text = pattern.sub(name, text)
    return text


def refreshed(path: Path) -> str:
    """The text of a page or notebook with what its commands and code print now."""
    if path == FIELDS:
        return result_fields()
    text = path.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return _notebook(text) if path.suffix == ".ipynb" else _page(text)


def _page(text: str) -> str:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    code, printed = 0, ""

    def fresh(block: re.Match[str]) -> str:
        nonlocal code, printed
        language, title, body = block["language"], block["title"], block["body"]
        if title == "Output":
            body = printed
        elif title:
            Path(title).write_text(body, encoding="utf-8")
        elif language == "python":
            printed = _printed(lambda: exec(compile(body, "<page>", "exec"), namespace))
        elif language == "console":
            shown = []
            for command in re.findall(r"^\$ (.+)$", body, re.MULTILINE):
                output, code = (f"{code}\n", 0) if command == "echo $?" else _run(command)
                shown.append(f"$ {command}\n{output}")
            body = "".join(shown)
        return block[0].replace(block["body"], body) if block["body"] else block[0].replace("\n```", f"\n{body}```")

    return _BLOCK.sub(fresh, text)


def _run(command: str) -> tuple[str, int]:
    """What a command prints, errors too if it fails, and its exit code. `listcon-eval` runs in this process."""
    command, _, lines = command.partition(" | head -")
    command, _, target = command.partition(" > ")
    name, *arguments = shlex.split(command)
    if name == "listcon-eval":
        done = CliRunner().invoke(app, arguments)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        output, code = done.stdout + (done.stderr if done.exit_code else ""), done.exit_code
    else:
        shell = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        output, code = shell.stdout + (shell.stderr if shell.returncode else ""), shell.returncode
    rows = [line.rstrip() for line in output.rstrip().splitlines()]
    printed = "".join(f"{row}\n" for row in (rows[: int(lines)] if lines else rows))
    if target and code == 0:
        Path(target).write_text(printed, encoding="utf-8")
        printed = ""
    return printed, code


def _printed(work: Callable[[], object]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as target:
        work()
    return "".join(f"{line.rstrip()}\n" for line in target.getvalue().splitlines())


def _notebook(text: str) -> str:
    content = json.loads(text)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, start=1):
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        values: list[object] = []

        def work(tree: ast.Module = tree, last: ast.stmt | None = last, values: list[object] = values) -> None:
            exec(compile(tree, "<cell>", "exec"), namespace)
            if isinstance(last, ast.Expr):
                values.append(eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace))

        printed = _printed(work)
        outputs: list[dict[str, Any]] = []
        if printed:
            outputs.append({"name": "stdout", "output_type": "stream", "text": printed.splitlines(keepends=True)})
        if values and values[0] is not None:
            shown = repr(values[0]).splitlines(keepends=True)
            result = {"data": {"text/plain": shown}, "execution_count": number, "metadata": {}}
            outputs.append({**result, "output_type": "execute_result"})
        cell.update(execution_count=number, outputs=outputs)
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


RECORDS: dict[str, tuple[type[BaseModel], ...]] = {
    "metrics.json": (records.Result, records.Signature, records.FirstStageRecord),
    "per_query.jsonl, a line": (records.QueryRow,),
    "run.jsonl, a line": (records.RankedQuery,),
    "provenance.json": (records.Provenance, records.ModelRecord, records.DataRecord),
    "manifest.json": (records.Manifest,),
}


def result_fields() -> str:
    """The reference of every field of the result files, from the typed records."""
    parts = [
        "# Fields of the result files",
        "Written by `make docs-outputs` from the typed records (`listcon_eval/results/records.py`), which both write\n"
        "and read the files. An unknown or missing field, or one of another type, is an error.",
    ]
    for file, own in RECORDS.items():
        parts.append(f"## {file}")
        for record in own:
            if record is not own[0]:
                parts += [f"### {record.__name__}", " ".join((record.__doc__ or "").split())]
            rows = [
                f"| `{name}` | {_type_name(field.annotation)} | {' '.join((field.description or '').split())} |"
                for name, field in record.model_fields.items()
                if not field.exclude
            ]
            parts.append("\n".join(["| field | type | meaning |", "|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _type_name(annotation: Any) -> str:  # noqa: ANN401 - any type
    """A type as JSON has it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        names = [_type_name(own) for own in arguments]
        return f"{', '.join(names[:-1])} or {names[-1]}"
    if origin is dict:
        return f"object: name -> {_type_name(arguments[1])}"
    if origin is tuple:
        return f"list: {_type_name(arguments[0])}"
    names_of = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", Any: "any value"}
    return names_of.get(annotation) or ("string" if annotation.__module__ == "datetime" else f"`{annotation.__name__}`")


def main(paths: list[str]) -> None:
    """Refresh files in place."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for path in [Path(path).resolve() for path in paths] or documents():
        path.write_text(refreshed(path), encoding="utf-8")
        sys.stderr.write(f"{path}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
