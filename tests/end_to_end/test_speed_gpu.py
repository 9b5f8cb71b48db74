"""The GPU command as it starts on a machine that has torch, transformers and numpy alone, and no installed package."""

import json
import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from command import ROOT, cold

NEEDED = ("torch", "transformers", "numpy")
# Newer versions of what those need may bring it along; those on a GPU machine may not.
LEFT_OUT = {"pydantic", "pydantic-core"}


def distributions(names: tuple[str, ...]) -> dict[str, Distribution]:
    """Those and what they need, as far as it is installed."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = re.sub("[-_.]+", "-", waiting.pop()).lower()
        try:
            found[name] = found.get(name) or distribution(name)
        except PackageNotFoundError:  # for another system, or an extra
            continue
        for text in found[name].requires or []:
            needed = Requirement(text)
            if needed.name not in found and (needed.marker is None or needed.marker.evaluate({"extra": ""})):
                waiting.append(needed.name)
    return {name: own for name, own in found.items() if name not in LEFT_OUT}


def bare_site(folder: Path) -> Path:
    """A folder to import from that has those libraries and this package's code, by links."""
    folder.mkdir()
    for own in distributions(NEEDED).values():
        for name in {file.parts[0] for file in own.files or [] if file.parts[0] != ".."}:
            target = Path(str(own.locate_file(name)))
            if target.exists() and not (folder / name).exists():
                (folder / name).symlink_to(target)
    (folder / "listcon_eval").symlink_to(ROOT / "listcon_eval")
    return folder


@pytest.mark.slow
def test_the_whole_command_on_a_cpu(tmp_path: Path) -> None:
    site = bare_site(tmp_path / "site")
    missing = ("pydantic", "psutil", "tabulate", "sklearn", "ir_measures", "mteb", "pandas", "pytest")
    assert not [name for name in missing if (site / name).exists()]
    start = (
        f"import sys; sys.path.insert(0, {str(site)!r}); sys.argv[0] = 'gpu'; "
        "import runpy; runpy.run_module('listcon_eval.speed.gpu', run_name='__main__', alter_sys=True)"
    )
    output = tmp_path / "out"
    # -I -S: nothing of this environment but the standard library.
    done = cold(
        *(sys.executable, "-I", "-S", "-c", start),
        *("--device", "cpu", "--scale", "tiny", "--output", output),
        environment={"TMPDIR": str(tmp_path)},
    )
    assert done.stdout.splitlines()[-2:] == [str(output / "gpu.json"), str(output / "gpu.md")]
    found = json.loads((output / "gpu.json").read_text(encoding="utf-8"))
    assert [row["section"] for row in found["sections"] if row["state"] != "done"] == []
    figures = {
        (row["section"], figure["what"]): figure["value"] for row in found["sections"] for figure in row["figures"]
    }
    assert figures["rankings", "CMedQAv1-reranking: float32 as the plain procedure"] == 1
    assert figures["rankings", "T2Reranking: float16 against float32: pairs the other way"] < 0.1
    assert figures["encoder", "bfloat16, T2Reranking, plain"] > 0
    assert figures["all tasks", "4 of 4 shapes, text to metrics, iterative"] > 0
    assert figures["out of memory", "stages that went on with smaller batches"] >= 1
    table = (output / "gpu.md").read_text(encoding="utf-8")
    assert table.count("\n| ") == 2 + len(found["sections"][0]["figures"]) + sum(
        len(row["figures"]) for row in found["sections"][1:]
    )
