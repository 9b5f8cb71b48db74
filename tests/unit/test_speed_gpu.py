"""The GPU command's parts, and its checks on every device there is."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from listcon_eval.errors import CheckFailedError
from listcon_eval.inference.devices import available_devices
from listcon_eval.speed import gpu
from listcon_eval.speed.checks import CHECKS, Check
from listcon_eval.speed.gpu import SCALES, Bench, Figure, Goal
from listcon_eval.speed.procedure import lost_pairs
from listcon_eval.speed.random_model import write_random_checkpoint

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint("tiny", tmp_path_factory.mktemp("speed") / "model")


@pytest.mark.parametrize("device", [name for name in available_devices() if name != "mps"])
@pytest.mark.parametrize("name", CHECKS)
def test_a_device_passes(name: str, device: str, folder: Path) -> None:
    check = CHECKS[name]
    if check.cuda_only and device != "cuda":
        pytest.skip("needs a CUDA device")
    assert check.run(torch.device(device), folder) <= check.limit


def test_failing_checks_are_all_named_and_keep_none_from_running(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: torch.device, _: Path) -> float:
        raise RuntimeError(f"no kernel\non {device}")

    checks = {
        "a": Check(broken, 1, "x"),
        "b": Check(lambda *_: float("nan"), 1, "x"),
        "c": Check(lambda *_: 1, 1, "x"),
    }
    monkeypatch.setattr(gpu, "CHECKS", checks)
    figures: list[Figure] = []
    with pytest.raises(CheckFailedError, match=r"2 of 3 checks failed: a: RuntimeError: no kernel; b: nan x, .* is 1"):
        figures += gpu.checks(Bench(CPU, SCALES["tiny"], folder))
    assert [figure.what for figure in figures] == ["b", "c"]


def test_goals_in_words() -> None:
    more, less, one = Goal(100, 120), Goal(100, 80), Goal(0.95, 0.95)
    assert more.verdict(99) == "100, stretch 120: missed"
    assert [goal.verdict(110).split(": ")[1] for goal in (more, less)] == ["goal reached", "missed"]
    assert [goal.verdict(80).split(": ")[1] for goal in (more, less)] == ["missed", "stretch reached"]
    assert [one.verdict(share) for share in (0.96, 0.94)] == ["0.95: goal reached", "0.95: missed"]


def test_lost_pairs_by_hand() -> None:
    expected = np.array([0.9, 0.5, 0.5, 0.1])
    assert lost_pairs(expected, np.array([4.0, 3.0, 2.0, 1.0])) == (5, 0, 0)
    assert lost_pairs(expected, np.array([4.0, 3.0, 1.0, 2.0])) == (5, 1, 0)
    assert lost_pairs(expected, np.array([1.0, 1.0, 1.0, 2.0])) == (5, 3, 2)


def test_a_section_that_fails_or_is_late_leaves_what_it_had(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now

    def fails(_: Bench) -> Iterator[Figure]:
        yield Figure("first", float("nan"), "s")
        raise RuntimeError("broken\nbadly")

    def late(_: Bench) -> Iterator[Figure]:
        yield Figure("second", 2.5, "s | 2")
        clock.now += 100
        yield Figure("third", 3.5, "s")
        yield Figure("fourth", 4.5, "s")

    monkeypatch.setattr(gpu, "time", clock)
    monkeypatch.setattr(gpu, "write_random_checkpoint", lambda *_: folder)
    monkeypatch.setattr(gpu, "SECTIONS", {"fails": (fails, 0), "late": (late, 0), "unreached": (fails, 0)})
    given = ["--device", "cpu", "--scale", "tiny", "--minutes", "1", "--output", str(tmp_path)]
    assert gpu.main(given) == 1
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    states = [
        (row["section"], row["state"], [figure["what"] for figure in row["figures"]]) for row in found["sections"]
    ]
    assert states == [
        ("fails", "failed", ["first"]),
        ("late", "skipped", ["second", "third"]),
        ("unreached", "skipped", []),
    ]
    assert found["sections"][0]["figures"][0]["value"] == "nan"
    assert found["sections"][0]["note"] == "RuntimeError: broken"
    assert "badly" in found["sections"][0]["details"]
    table = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "| late | second | 2.5 s / 2 |  |" in table
    assert "| fails | **failed**: RuntimeError: broken |  |  |" in table
    end = capsys.readouterr().out.splitlines()[-4:]
    assert end == ["skipped: late, unreached", "failed: fails", str(tmp_path / "gpu.json"), str(tmp_path / "gpu.md")]


def test_unusable_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--device", "gpu", "--output", str(tmp_path / "out")]) == 2
    (tmp_path / "file").touch()
    assert gpu.main(["--device", "cpu", "--scale", "tiny", "--output", str(tmp_path / "file")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("no device 'gpu': give one of")
    assert second.startswith(f"cannot write to {tmp_path / 'file'}")


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_there_has_to_be_time(minutes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--device", "cpu", "--scale", "tiny", "--minutes", minutes, "--output", str(tmp_path)]) == 2
    assert f"--minutes is {float(minutes):g}: give a number above 0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
