"""The gate on the mini benchmark: red for every fault in the ranking code, green for every honest run."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from checkpoints import write_gate_checkpoint
from end_to_end.test_run import listcon_eval
from faults import FAULTS, Fault
from listcon_eval.data import MINI, mini_task
from listcon_eval.evaluate import Request, evaluate
from listcon_eval.records import MODES
from listcon_eval.regression import Baseline, Verdict, baseline_of, check, read_baseline, write_baseline

BASELINE = Path(__file__).resolve().parents[2] / "results" / "mini-baseline.json"


@pytest.fixture(scope="module")
def gate_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gate_checkpoint(tmp_path_factory.mktemp("gate") / "gate-checkpoint")


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def judged(checkpoint: Path, output: Path, tasks: Sequence[str]) -> Verdict:
    """Run tasks in both modes and hold them against the committed baseline."""
    request = Request(
        str(checkpoint), [mini_task(name) for name in tasks], MODES, output, device="cpu", precision="precise"
    )
    evaluate(request)
    baseline = read_baseline(BASELINE)
    entries = [entry for entry in baseline.entries if entry.key.task in tasks]
    return check(Baseline(BASELINE, entries), baseline_of(output))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_turns_the_gate_red(
    fault: Fault, gate_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    verdict = judged(gate_checkpoint, tmp_path, MINI)
    assert verdict.failed
    assert not verdict.unjudged
    assert all(finding.queries for finding in verdict.failed)


def test_an_honest_run_of_all_tasks_is_green(gate_checkpoint: Path, tmp_path: Path) -> None:
    verdict = judged(gate_checkpoint, tmp_path, MINI)
    assert len(verdict.findings) == len(MINI) * len(MODES) * 8
    assert not [finding for finding in verdict.findings if finding.fell or finding.rose]


def test_twenty_honest_runs_are_green_whatever_the_threads(
    gate_checkpoint: Path, tmp_path: Path, threads: None
) -> None:
    for number in range(20):
        torch.set_num_threads(1 + number % 2)
        verdict = judged(gate_checkpoint, tmp_path / str(number), ["MiniSearch"])
        assert len(verdict.findings) == len(MODES) * 8
        assert not [finding for finding in verdict.findings if finding.fell or finding.rose]


def test_the_command_says_by_its_exit_code(gate_checkpoint: Path, tmp_path: Path) -> None:
    judged(gate_checkpoint, tmp_path, ["MiniMedicalB"])
    own = tmp_path / "own.json"
    printed = listcon_eval("check", "--baseline", own, "--current", tmp_path, "--update").stdout
    assert printed.splitlines()[-1] == str(own)
    assert printed.count("MiniMedicalB@sha256-") == len(MODES)

    junit = tmp_path / "gate.xml"
    options = ("--current", tmp_path, "--junit", junit)
    assert "16 of 16 metrics hold" in listcon_eval("check", "--baseline", own, *options).stdout
    assert ElementTree.parse(junit).getroot().get("failures") == "0"

    better = tmp_path / "better.json"  # the same runs, were they better
    entries = baseline_of(tmp_path).entries
    raised = {measure: tuple(min(1.0, value + 0.1) for value in row) for measure, row in entries[0].values.items()}
    write_baseline(Baseline(better, [replace(entries[0], values=raised), *entries[1:]]), better)
    done = listcon_eval("check", "--baseline", better, *options, "--format", "markdown", code=1)
    assert "| MiniMedicalB |" in done.stdout
    assert "8 of 16 metrics fell below" in done.stderr
    assert ElementTree.parse(junit).getroot().get("failures") == "8"

    done = listcon_eval("check", "--baseline", BASELINE, *options, code=2)
    assert "has no run of the task" in done.stdout
    assert "6 runs of" in done.stderr
