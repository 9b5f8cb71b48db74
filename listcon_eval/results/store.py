"""Results on disk: what makes a run finished, how it is written whole, and how it is read back.

    results/{org__model}/{revision}/experiments/{settings}__{Task}__{key}/   one run: one key, one folder
        {Task}.json, model_meta.json, run_settings.jsonl                    mteb's, in the layout of its results cache
        {Task}/metrics.json      the means of both protocols: `records.Result`
        {Task}/per_query.jsonl   the metrics of every query: `records.QueryRow`
        {Task}/run.jsonl         every query's candidates, scores, rounds, labels: `records.RankedQuery`
        {Task}/run.trec, qrels.trec   the same scores and judgements as TREC files
        {Task}/provenance.json   where it comes from: `records.Provenance`
        {Task}/manifest.json     the key, and a checksum of each of these: `records.Manifest`

A run is finished when its folder holds a manifest of its key that all files agree with. The folder is written aside and
swapped in whole.
"""

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from listcon_eval.arguments import checked
from listcon_eval.errors import ListconError, count_of
from listcon_eval.files import remove_leftovers, restore_swapped, sha256_of_file, swapped_folder, write_json
from listcon_eval.ordering import PROTOCOLS
from listcon_eval.results.chunk_cache import chunk_folders, is_locked
from listcon_eval.results.records import (
    MANIFEST,
    METRICS,
    PER_QUERY,
    PROVENANCE,
    RUN,
    Manifest,
    Provenance,
    QueryRow,
    RankedQuery,
    Result,
    read_record,
    read_rows,
)

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

RESULTS = "results"
# mteb rounds its means to five digits; half a unit of the fifth, and room for the sum's own rounding
_MEAN_TOLERANCE = 6e-6


def results_folder(output: Path) -> Path:
    """The `results` folder that `output` names: itself if it has that name, else the one inside it."""
    return output if output.resolve().name == RESULTS else output / RESULTS


def key_of(parts: Mapping[str, Any]) -> str:
    """A key of what a result depends on: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@contextmanager
def run_written(folder: Path, task: str, key: str) -> Iterator[Path]:
    """A folder aside to write a run into; at the end it is sealed by a manifest of its key and swapped in whole."""
    with swapped_folder(folder) as staged:
        (staged / task).mkdir()
        yield staged
        files = sorted(path for path in staged.rglob("*") if path.is_file())
        checksums = {path.relative_to(staged).as_posix(): sha256_of_file(path) for path in files}
        write_json(staged / task / MANIFEST, {"key": key, "sha256": checksums})
    shutil.rmtree(failures_folder(folder), ignore_errors=True)


def failures_folder(folder: Path) -> Path:
    """Where a run that cannot be finished says why: beside the run's folder."""
    return folder.with_name(f"{folder.name}.failed")


def is_finished(folder: Path, task: str, key: str) -> bool:
    """Whether a folder holds the finished run of a key; what an interrupted swap left is put right first.

    Raises:
        ListconError: it does, but one of its files is gone or was changed; names the file.
    """
    remove_leftovers(folder)
    own = folder / task
    if not any((own / name).exists() for name in (MANIFEST, METRICS)):
        return False
    if verified(folder, task).key != key:
        raise ListconError(f"{own / MANIFEST} was changed after the run (its key is another): {_REMEDY}")
    return True


def verified(folder: Path, task: str) -> Manifest:
    """The manifest of a run, whose files are as they were written; files of other programs do not matter.

    Raises:
        ListconError: the manifest is no manifest, or a file is gone or was changed; names it.
    """
    manifest = read_record(Manifest, folder / task / MANIFEST)
    for name, checksum in manifest.sha256.items():
        path = folder / name
        if not path.is_file():
            raise ListconError(f"{path} is gone: {_REMEDY}")
        if sha256_of_file(path) != checksum:
            raise ListconError(f"{path} was changed after the run (its checksum does not fit): {_REMEDY}")
    return manifest


_REMEDY = "run the evaluation again with --fresh, or put the file back"


def load_result(folder: Path, task: str) -> Result:
    """The numbers of a run, whose files are verified."""
    verified(folder, task)
    return read_record(Result, folder / task / METRICS).model_copy(update={"folder": folder})


class Results(list[Result]):
    """Results, as a list of typed records and as DataFrames. Metrics are from 0 to 1, p-MRR from -1."""

    def frame(self) -> "pd.DataFrame":
        """A row a result: what was measured, and a column a mean: `cmteb:map`, `mteb:p-MRR`, `ir_measures:nDCG@10`."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    **_identity(result),
                    "queries": result.queries,
                    **{
                        f"{protocol}:{name}": value
                        for protocol in PROTOCOLS
                        for name, value in result.means(protocol).items()
                    },
                    **{f"mteb:{name}": value for name, value in result.task_scores.items()},
                }
                for result in self
            ]
        )

    def per_query(self) -> "pd.DataFrame":
        """A row a result and query, a column a metric; NaN in the `cmteb` columns of a query that it drops.

        Raises:
            ListconError: as `read_per_query`.
        """
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for result in self:
            values = read_per_query(result)
            rows += [
                {**_identity(result), "query_id": query_id, **{name: own.get(query_id) for name, own in values.items()}}
                for query_id in dict.fromkeys(query_id for own in values.values() for query_id in own)
            ]
        return pd.DataFrame(rows)


def _identity(result: Result) -> dict[str, Any]:
    """Columns in which two results always differ."""
    return {
        "task": result.task,
        "system": result.system,
        "mode": result.mode,
        "dtype": result.dtype,
        "settings": json.dumps({k: v for k, v in result.settings.items() if k not in ("mode", "dtype")}),
        "kind": result.kind,
        "model": result.model,
        "model_revision": result.model_revision,
        "data_revision": result.data_revision,
    }


@checked
def load_results(path: str | Path, metrics: Sequence[str] = ()) -> Results:
    """The results in a folder: a run's, an output folder's, or any folder above runs.

    Of several runs of one system, with the same settings, on the same data, the one that was finished last is taken; of
    those that have most of the `metrics`, by ir_measures' names, where some are asked for. A warning says when there
    are runs that a later one replaces, with all that they measured; `listcon-eval clean` removes them.

    Raises:
        ListconError: no such folder, no run in it, or a run's files are not as they were written.
    """
    root = Path(path)
    check_folder(root)
    found = [load_result(folder, task) for folder, task in run_folders(root)]
    if not found:
        raise ListconError(f"no runs in {path}: `listcon-eval run --output {path}` writes them")
    if older := len(_replaced(found)):
        logger.warning(
            "%s: left out %s of the same system on the same data; `listcon-eval clean` removes what is older",
            path,
            count_of(older, "older run"),
        )
    taken = [max(reversed(own), key=lambda run: len(run.ir_measures.keys() & {*metrics})) for own in _repeats(found)]
    folders = {result.folder for result in taken}
    return Results(result for result in found if result.folder in folders)


def check_folder(path: Path) -> None:
    """Raise a ListconError where there is no folder; says what there is."""
    if not path.is_dir():
        what = "is a file" if path.is_file() else "is neither file nor folder" if path.exists() else "is not there"
        raise ListconError(f"no such folder: {path} {what}; give a run's folder, or one with runs in it")


def _repeats(results: Sequence[Result]) -> Collection[Sequence[Result]]:
    """The runs of one system on the same data together, in the order in which they were finished."""
    groups: dict[tuple[object, ...], list[Result]] = {}
    for result in sorted(results, key=lambda result: result.finished):
        groups.setdefault((result.system_key, result.task, result.data_revision), []).append(result)
    return groups.values()


def _replaced(results: Sequence[Result]) -> list[Result]:
    """The runs all of whose metrics a later run of the same system on the same data has too."""
    return [
        old
        for own in _repeats(results)
        for place, old in enumerate(own)
        if any(old.ir_measures.keys() <= new.ir_measures.keys() for new in own[place + 1 :])
    ]


def run_folders(root: Path) -> Iterator[tuple[Path, str]]:
    """The run folders in a folder (or the one it is, or is in) with their tasks, in the order of their paths."""
    if any((root / name).is_file() for name in (METRICS, MANIFEST)):  # this package's files in a run's folder
        root = root if root.name.strip(".") else root.resolve()  # "." and ".." have names too
        yield root.parent, root.name
        return
    for path in sorted(root.rglob(".*.replaced")):
        restore_swapped(path.with_name(path.name[1:].removesuffix(".replaced")))
    own = {path.parent for name in (METRICS, MANIFEST) for path in root.rglob(name)}  # one of them may be gone
    for path in sorted(own):
        if not any(part.startswith(".") for part in path.relative_to(root).parts):
            yield path.parent, path.name


def superseded(root: Path) -> list[Path]:
    """Folders to `remove`: older runs of what was run again, and chunks of interrupted runs."""
    older = sorted(result.folder for result in _replaced([load_result(*place) for place in run_folders(root)]))
    return older + [folder for folder in chunk_folders(root) if not is_locked(folder)]


def read_per_query(result: Result) -> dict[str, dict[str, float]]:
    """The metrics of every query: measure (as `cmteb:map`) -> query id -> value, 0 to 1.

    A query that `cmteb` drops is in the `mteb` measures alone.

    Raises:
        ListconError: the file cannot be read, or does not give the means that `metrics.json` holds.
    """
    path = result.file(PER_QUERY)
    values: dict[str, dict[str, float]] = {
        f"{protocol}:{name}": {} for protocol in PROTOCOLS for name in result.means(protocol)
    }
    queries = 0
    for row in read_rows(QueryRow, path):
        queries += 1
        for protocol, own in zip(PROTOCOLS, (row.cmteb or {}, row.mteb, row.ir_measures), strict=True):
            for name, value in own.items():
                if not 0 <= value <= 1:
                    raise ListconError(f"{path}: a {protocol}:{name} of {value}; expected a value from 0 to 1")
                values.setdefault(f"{protocol}:{name}", {})[row.query_id] = value
    if queries != result.queries:
        seen = f"{count_of(queries, 'query')}, {METRICS} beside it says {result.queries}"
        raise ListconError(f"{path} has {seen}: {_REMEDY}")
    for measure, own in values.items():
        group, _, name = measure.partition(":")
        mean, found = result.means(group).get(name), math.fsum(own.values()) / max(1, len(own))
        if mean is None or not abs(found - mean) <= _MEAN_TOLERANCE:
            raise ListconError(f"{path}: {measure} averages to {found:.6f}, {METRICS} beside it says {mean}: {_REMEDY}")
    return values


def read_rankings(result: Result) -> dict[str, RankedQuery]:
    """Every query's candidates with their scores, by query id, in the order of the run."""
    return {row.query_id: row for row in read_rows(RankedQuery, result.file(RUN))}


def read_provenance(result: Result) -> Provenance:
    """Where a result comes from."""
    return read_record(Provenance, result.file(PROVENANCE))
