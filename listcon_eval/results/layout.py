"""Where a run's files lie: mteb's results cache, with a folder of this package's files beside each task's JSON.

results/{org__model}/{revision}/experiments/{mode_...__precision_...}/
    {Task}.json            mteb's TaskResult, as mteb writes and loads it
    model_meta.json        mteb's
    run_settings.jsonl     mteb's
    {Task}/metrics.json    the means of both protocols, and their signature
    {Task}/per_query.jsonl the metrics of every query
    {Task}/run.jsonl       every query's candidates: scores, rounds, judgements, cmteb labels
    {Task}/run.trec        the same scores as a TREC run
    {Task}/qrels.trec      the judgements as TREC qrels
    {Task}/provenance.json what was run, on what, with which versions, and the seconds by phase
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from listcon_eval.errors import ListconError
from listcon_eval.records import POINTWISE

RESULTS = "results"
METRICS, PER_QUERY, RUN, TREC_RUN, TREC_QRELS, PROVENANCE = (
    "metrics.json",
    "per_query.jsonl",
    "run.jsonl",
    "run.trec",
    "qrels.trec",
    "provenance.json",
)

# Bounds and baselines are no models, and a table says so; other kinds go by the model's name.
_NO_MODELS = {
    "bm25": "BM25",
    "random": "random order",
    "oracle": "oracle (upper bound)",
    "run-file": "run file",
}


def results_folder(output: Path) -> Path:
    """The `results` folder that `output` names: itself if it has that name, else the one inside it."""
    return output if output.resolve().name == RESULTS else output / RESULTS


@dataclass(frozen=True)
class RunRecord:
    """The numbers of one model, in one mode, on one task, as read from or written to disk.

    Attributes:
        folder: the folder of this package's files.
        task: the task's name.
        is_official: whether the data is the official data of the task of that name.
        model: the model's name, `org/name`.
        model_revision: its revision.
        mode: the inference mode.
        precision: the precision.
        queries: how many queries the means are over.
        cmteb: the means by name, 0 to 1.
        mteb: the means by name, 0 to 1.
        signature: what the numbers depend on, in one line.
        kind: the kind of system that was measured; files written before there were several have none.
    """

    folder: Path
    task: str
    is_official: bool
    model: str
    model_revision: str
    mode: str
    precision: str
    queries: int
    cmteb: dict[str, float]
    mteb: dict[str, float]
    signature: str
    kind: str = "listconranker"

    @property
    def system(self) -> str:
        """The short name of what was measured: the model's, or what a bound or a baseline is."""
        name = self.model.rpartition("/")[2]
        what = _NO_MODELS.get(self.kind)
        if what is None:
            return name
        variant = name.removeprefix(self.kind).lstrip("-")
        return f"{what} ({variant})" if variant else what

    @property
    def shown_mode(self) -> str:
        """The inference mode; `-` for systems that have only one way to rank."""
        return "-" if self.mode == POINTWISE else self.mode

    @property
    def data_revision(self) -> str:
        """The revision of the data, which the signature begins with: `task@revision|...`."""
        return self.signature.partition("|")[0].rpartition("@")[2]

    def to_json(self) -> dict[str, Any]:
        """The content of `metrics.json`."""
        return {name: value for name, value in self.__dict__.items() if name != "folder"}


def read_run(folder: Path) -> RunRecord:
    """Read the numbers of a run from its folder.

    Raises:
        ListconError: when its `metrics.json` is absent or not what this package writes.
    """
    path = folder / METRICS
    try:
        return RunRecord(folder=folder, **json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ListconError(f"{path} cannot be read as a run's metrics: {error}; run the evaluation again") from error


def find_runs(output: Path) -> Iterator[RunRecord]:
    """All runs under an output folder, in the order of their paths.

    Raises:
        ListconError: when there is no results folder, or a run in it cannot be read.
    """
    root = results_folder(output)
    if not root.is_dir():
        raise ListconError(f"no results at {root}: `listcon-eval run --output {output}` writes them")
    for path in sorted(root.glob(f"*/*/experiments/*/*/{METRICS}")):
        yield read_run(path.parent)
