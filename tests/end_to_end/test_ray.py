"""Workers of Ray: the bytes of one process, whoever is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from numpy.typing import NDArray

from command import cold, listcon_eval, one_line
from listcon_eval.cli import report
from listcon_eval.data import local_task
from listcon_eval.errors import ListconError
from listcon_eval.evaluation import evaluate
from listcon_eval.report import run_data
from listcon_eval.results.chunk_cache import ChunkCache
from listcon_eval.sweep import Sweep, cells_of
from listcon_eval.systems.base import LoadOptions
from listcon_eval.workers import RayWorkers, needs_workers
from run_files import contents, read_json, run_folders, write_few_lists
from systems import write_cross_encoder, write_embedding

ON_CPU = {"device": "cpu", "devices": 1, "texts_of": lambda arguments: [str(arguments[0])]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Lists of 4000 texts, so that there are several chunks of each kind."""
    return write_few_lists(tmp_path / "lists.jsonl", queries=100, size=40)


def worker_processes(pid: int | None = None) -> list[psutil.Process]:
    """The workers that a process, by default this one, has started."""
    return [
        process
        for process in psutil.Process(pid).children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE and "".join(process.cmdline()).startswith("ray::_Worker")
    ]


def test_what_workers_are_asked_for() -> None:
    assert not needs_workers(1, "cuda", 1)
    assert not needs_workers("auto", "cpu", 1)
    assert needs_workers("auto", "cuda", 8)
    assert needs_workers("ray://head:10001", "cpu", 1)
    for wrong in (0, "0", "-1", "many", "ray://head", "head:6379"):
        with pytest.raises(ListconError, match="give a number, auto, or"):
            needs_workers(wrong, "cpu", 1)
    with pytest.raises(ListconError, match="--workers is 9, and this machine has 8 cuda devices"):
        needs_workers(9, "cuda", 8)


def test_systems_that_compute_nothing_take_no_workers() -> None:
    told = listcon_eval("run", "-m", "bm25", "--tasks", "MiniWeb", "--workers", "2", code=2).stderr
    assert "leave out --workers" in one_line(told)
    assert "loading" not in told


def test_ray_is_missed_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    told = listcon_eval(
        "run", "-m", "mini", "--workers", "2", "--tasks", "MiniWeb", "--output", tmp_path, code=2
    ).stderr
    assert "error: --workers needs Ray, which is not installed: `pip install 'listcon-eval[ray]'`" in one_line(told)


@pytest.mark.slow
def test_a_call_that_a_worker_died_of_is_made_by_another_one(tmp_path: Path) -> None:
    class Made:
        """Writes down which process was asked for what."""

        def work(self, what: str) -> tuple[str, int]:
            with (tmp_path / what).open("a", encoding="utf-8") as file:
                file.write(f"{os.getpid()}\n")
            calls = len((tmp_path / what).read_text(encoding="utf-8").splitlines())
            if what == "deadly" or (what == "deadly once" and calls == 1):
                time.sleep(0.5)  # for the result of the call before to arrive
                os.kill(os.getpid(), signal.SIGKILL)
            if what == "wrong":
                raise ListconError("it is wrong")
            return what, os.getpid()

    def made(what: str) -> list[str]:
        return (tmp_path / what).read_text(encoding="utf-8").splitlines()

    with RayWorkers(2, Made, **ON_CPU) as workers:  # type: ignore[arg-type]
        names = [f"call {number}" for number in range(6)]
        found = dict(workers.run("work", ((name,) for name in [*names[:3], "deadly once", *names[3:]])))
        assert [found[number][0] for number in range(7)] == [*names[:3], "deadly once", *names[3:]]
        first, second = made("deadly once")
        assert first != second
        assert str(found[3][1]) == second
        assert all(len(made(name)) == 1 for name in names)  # what a dead worker had not begun is done once

        outcomes = dict(workers.outcomes("work", [("call 9",), ("wrong",), ("deadly",), ("call 10",)]))
        assert isinstance(outcomes[1], ListconError)
        assert str(outcomes[1]) == "it is wrong"
        assert "3 workers died one after the other over 'deadly'" in str(outcomes[2])
        assert len(set(made("deadly"))) == 3
        assert (outcomes[0][0], outcomes[3][0]) == ("call 9", "call 10")
        with pytest.raises(ListconError, match="it is wrong"):
            list(workers.run("work", [("wrong",)]))


@pytest.mark.slow
def test_what_is_done_is_not_kept_back_by_a_worker_that_does_not_start(tmp_path: Path) -> None:
    class Made:
        """The first one is ready; the second one waits until the test says so."""

        def __init__(self) -> None:
            with suppress(FileExistsError):
                (tmp_path / "first").touch(exist_ok=False)
                return
            while not (tmp_path / "go").exists():
                time.sleep(0.05)

        def work(self, what: int) -> int:
            return what

    with RayWorkers(2, Made, **ON_CPU) as workers:  # type: ignore[arg-type]
        assert dict(workers.run("work", [(1,), (2,), (3,)])) == {0: 1, 1: 2, 2: 3}
        (tmp_path / "go").touch()
        assert dict(workers.run("work", [(4,), (5,)])) == {0: 4, 1: 5}


def test_a_worker_that_dies_leaves_the_bytes_of_one_process(
    checkpoint_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(output: str, workers: int) -> dict[str, bytes]:
        options = LoadOptions(device="cpu", dtype="float32", workers=workers)
        evaluate(str(checkpoint_folder), [local_task(str(data))], output=tmp_path / output, options=options)
        return contents(tmp_path / output)

    killed: list[psutil.Process] = []
    save = ChunkCache.save

    def save_and_kill(self: ChunkCache, name: str, array: NDArray[Any]) -> None:
        save(self, name, array)
        if not killed:
            killed.append(worker_processes()[0])
            killed[0].kill()

    expected = run("alone", 1)
    monkeypatch.setattr(ChunkCache, "save", save_and_kill)
    assert run("workers", 2) == expected
    assert len(expected) == 8
    assert killed
    assert not worker_processes()
    for folder in run_folders(tmp_path / "workers"):
        assert read_json(folder / "provenance.json")["observed"]["workers"] == 2


@pytest.mark.slow
def test_a_sweep_shows_failed_cells_and_skips_finished_ones(checkpoint_folder: Path, tmp_path: Path) -> None:
    plan = tmp_path / "sweep.yaml"
    lines = [
        f"models: [bm25, random, oracle, {checkpoint_folder}, {{model: {checkpoint_folder}, max_length: 9999}}]",
        "tasks: [MiniWeb, MiniSearch, MiniMedicalA]",
        "modes: [iterative]",
        "limit: 5",
        f"output: {tmp_path / 'out'}",
        "workers: 2",
    ]
    plan.write_text("\n".join(lines), encoding="utf-8")
    first = listcon_eval("sweep", plan, code=1)
    told = one_line(first.stderr)
    assert "3 of 15 cells failed" in told
    assert "max_length is 9999: this encoder takes 3" in told
    assert len(run_folders(tmp_path / "out")) == 12
    assert (tmp_path / "out" / "report.html").is_file()
    assert "BM25 (characters)" in first.stdout
    again = listcon_eval("sweep", plan, "--workers", "1", code=1)  # cells may be finished by either
    assert again.stderr.count("finished before") == 12
    assert again.stdout == first.stdout


def test_a_sweep_without_the_extra_for_a_page_says_so_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "find_spec", lambda name: None if name == "matplotlib" else object())
    content = f"models: [bm25]\ntasks: [MiniWeb]\nmetrics: [AP]\noutput: {tmp_path}"
    (tmp_path / "sweep.yaml").write_text(content, encoding="utf-8")
    done = listcon_eval("sweep", tmp_path / "sweep.yaml")
    first, *_ = done.stderr.splitlines()
    assert first.startswith("no report.html will be written: a report needs matplotlib")
    assert "pip install 'listcon-eval[report]'" in first
    assert "BM25 (characters)" in done.stdout
    assert not (tmp_path / "report.html").exists()
    assert listcon_eval("sweep", tmp_path / "sweep.yaml", "--quiet").stderr == ""


def test_a_page_that_cannot_be_made_does_not_fail_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_data, "MAX_SYSTEMS", 1)
    content = f"models: [bm25, random]\ntasks: [MiniWeb]\nlimit: 2\noutput: {tmp_path}"
    (tmp_path / "sweep.yaml").write_text(content, encoding="utf-8")
    done = listcon_eval("sweep", tmp_path / "sweep.yaml")
    assert "2 systems for one report; give at most 1 there is no report.html for this reason" in one_line(done.stderr)
    assert "BM25 (characters)" in done.stdout


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("tasks: [MiniSearch]", "models is missing: give it, such as"),
        ("modles: [bm25]", "models is missing"),
        ("models: [bm25]\ntask: [MiniSearch]", "'task' is no key of a sweep: known are models, tasks, data"),
        ("models: [bm25]\nworkers: true", "workers is True: give a number, auto, or a cluster's address"),
        ("models: [bm25]\nmodes: []", "modes is []"),
        ("models: [bm25, bm25]\ntasks: [MiniSearch]", "the sweep has bm25 in auto twice"),
        ("models: [bm25, 'bm25:characters']\ntasks: [MiniSearch]", "the sweep has bm25:characters in auto twice"),
        ("models: ['random:0', random]\ntasks: [MiniSearch]", "the sweep has random in auto twice"),
        (
            "models: [mini]\ntasks: [MiniSearch]\ndevice: cpu\ndtypes: [auto, float32]",
            "the sweep has mini in float32 twice",
        ),
        ("models: [bm25]\nmetrics: [foo]", "foo"),
        ("", "holds None: expected keys with their values"),
        ("models: []", "models is []"),
        ('models: [bm25]\noutput: ""', "output is '': String should have at least 1 character"),
        ("models: [bm25]\ndtypes: [float8]", "dtypes.0 is 'float8'"),
        ("models: [{model: bm25, size: 3}]", "'models.0.size' is no key of a sweep: known are model, kind"),
        ("models: [{model: bm25, max_length: 9}]", "leave out --max-length: a model of the kind bm25"),
        ("models: [bm25]\nmodels: [random]", "comes a second time"),
    ],
)
def test_a_sweep_file_that_says_something_else_is_refused(key: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(key, encoding="utf-8")
    assert message in one_line(listcon_eval("sweep", tmp_path / "sweep.yaml", code=2).stderr)


@pytest.mark.parametrize(("workers", "together"), [(1, "given"), (2, "task")])
def test_one_process_loads_a_model_once_and_several_begin_with_long_tasks(workers: int, together: str) -> None:
    tasks = ["CMedQAv1-reranking", "T2Reranking"]
    cells = cells_of(Sweep(models=["bm25", "random"], tasks=tasks, workers=workers))  # type: ignore[list-item]
    found = [cell.spec.given if together == "given" else cell.task for cell in cells]
    assert found == (["bm25", "bm25", "random", "random"] if workers == 1 else [tasks[1], tasks[1], tasks[0], tasks[0]])


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_embedding, write_cross_encoder])
def test_other_systems_have_the_bytes_of_one_process(write: Callable[[Path], Path], data: Path, tmp_path: Path) -> None:
    model = write(tmp_path / "model")
    for output, workers in (("alone", "1"), ("workers", "2")):
        listcon_eval("run", "-m", model, "--data", data, "--output", tmp_path / output, "--workers", workers)
    assert contents(tmp_path / "workers") == contents(tmp_path / "alone")


@pytest.fixture
def killed_run(checkpoint_folder: Path, data: Path, tmp_path: Path) -> Callable[[str, str], int]:
    """Start a run with so many workers, kill it with SIGKILL at its first chunk, finish it with others."""

    def run(output: str, workers: str) -> list[str | Path]:
        start: list[str | Path] = [sys.executable, "-m", "listcon_eval", "run", "-m", checkpoint_folder]
        return [*start, "--data", data, "--output", tmp_path / output, "--workers", workers]

    def killed(first: str, second: str) -> int:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(run("killed", first), stderr=subprocess.DEVNULL, env=environment) as process:
            while not list((tmp_path / "killed").rglob("*.chunk")):
                assert process.poll() is None
                time.sleep(0.005)
            left = worker_processes(process.pid)
            process.kill()
        assert len(left) == (2 if first == "2" else 0)
        _, alive = psutil.wait_procs(left, timeout=60)
        assert not alive
        cold(*run("killed", second))
        cold(*run("whole", "1"))
        assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
        folders = run_folders(tmp_path / "killed")
        return sum(read_json(folder / "provenance.json")["resumed_chunks"] for folder in folders)

    return killed


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("2", "2"), ("2", "1"), ("1", "2")])
def test_a_run_whose_first_process_is_killed_resumes(
    killed_run: Callable[[str, str], int], first: str, second: str
) -> None:
    assert killed_run(first, second) > 0
