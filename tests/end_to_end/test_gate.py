"""The gate on the mini benchmark: red for every fault in the ranking code, green for every honest run."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from checkpoints import write_gate_checkpoint
from command import listcon_eval
from faults import FAULTS, Fault
from listcon_eval.data import MINI, mini_task
from listcon_eval.evaluation import evaluate
from listcon_eval.records import MODES
from listcon_eval.regression.baseline import Baseline, BaselineRun, baseline_of, read_baseline, write_baseline
from listcon_eval.regression.check import Verdict, check
from listcon_eval.systems.base import LoadOptions

BASELINE = Path(__file__).resolve().parents[2] / "results" / "mini-baseline.json"
TASK = "MiniSearch"


@pytest.fixture(scope="module")
def gate_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gate_checkpoint(tmp_path_factory.mktemp("gate") / "gate-checkpoint")


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def judged(checkpoint: Path, output: Path, tasks: Sequence[str]) -> Verdict:
    """Run tasks in both modes and compare them with the committed baseline."""
    options = LoadOptions(device="cpu", dtype="float32")
    evaluate(str(checkpoint), [mini_task(name) for name in tasks], modes=MODES, output=output, options=options)
    chosen = tuple(run for run in read_baseline(BASELINE).runs if run.key.task in tasks)
    return check(Baseline(BASELINE, chosen), baseline_of(output))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_turns_the_gate_red(
    fault: Fault, gate_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    verdict = judged(gate_checkpoint, tmp_path, [TASK])
    assert verdict.failed
    assert not verdict.not_comparable
    assert verdict.changed


def test_an_honest_run_of_all_tasks_is_green(gate_checkpoint: Path, tmp_path: Path) -> None:
    verdict = judged(gate_checkpoint, tmp_path, MINI)
    assert len(verdict.changes) == len(MINI) * len(MODES) * 8
    assert not [change for change in verdict.changes if change.fell or change.rose]


@pytest.mark.slow
def test_twenty_honest_runs_are_green_whatever_the_threads(
    gate_checkpoint: Path, tmp_path: Path, threads: None
) -> None:
    for number in range(20):
        torch.set_num_threads(1 + number % 2)
        verdict = judged(gate_checkpoint, tmp_path / str(number), [TASK])
        assert len(verdict.changes) == len(MODES) * 8
        assert not [change for change in verdict.changes if change.fell or change.rose]


def test_the_command_says_by_its_exit_code(gate_checkpoint: Path, tmp_path: Path) -> None:
    judged(gate_checkpoint, tmp_path, ["MiniMedicalB"])
    own = tmp_path / "own.json"
    done = listcon_eval("check", "--baseline", own, "--current", tmp_path, "--update")
    assert done.stdout == f"{own}\n"
    assert f"{len(MODES)} runs written to the baseline" in done.stderr

    junit = tmp_path / "gate.xml"
    options = ("--current", tmp_path, "--junit", junit)
    assert "16 of 16 metrics hold" in listcon_eval("check", "--baseline", own, *options).stdout
    assert ElementTree.parse(junit).getroot().get("failures") == "0"

    first, *others = baseline_of(tmp_path).runs  # the same runs, were the first of them better
    values: dict[str, tuple[float | None, ...]] = {}
    for measure, row in first.values.items():
        values[measure] = tuple(min(1.0, (value or 0) + 0.1) for value in row)
    means = {measure: math.fsum(value or 0 for value in row) / len(row) for measure, row in values.items()}
    raised = BaselineRun(signature=first.signature, query_ids=first.query_ids, means=means, values=values)
    better = write_baseline(Baseline(tmp_path, (raised, *others)), tmp_path / "better.json")
    done = listcon_eval("check", "--baseline", better, *options, "--format", "markdown", code=1)
    assert "| MiniMedicalB |" in done.stdout
    assert "8 of 16 metrics fell below" in " ".join(done.stderr.split())
    assert ElementTree.parse(junit).getroot().get("failures") == "8"
    content = json.loads(listcon_eval("check", "--baseline", better, "--current", tmp_path, "--json", code=1).stdout)
    assert (content["holds"], len(content["changed"])) == (False, 10)

    done = listcon_eval("check", "--baseline", BASELINE, *options, code=2)
    assert "has no run of the task" in " ".join(done.stdout.split())
    assert "6 runs of" in done.stderr
