"""A TREC run that was made elsewhere: its scores, for the candidates of a task."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from listcon_eval.errors import ListconError
from listcon_eval.records import CandidateList, RankedList
from listcon_eval.results.trec import read_trec_run, short_hash
from listcon_eval.systems.detection import Found
from listcon_eval.systems.naming import name_of_file
from listcon_eval.systems.system import Job, Options, System

logger = logging.getLogger(__name__)


class RunFile(System):
    """The scores of a TREC run file.

    Query and document ids have to be those of the task, and every query that has candidates has to be in the file.
    Candidates that the file leaves out for a query rank behind all that it has, tied with each other: tools cut their
    runs at some rank. How many they are is said in a warning, and written down.

    Args:
        path: the file.

    Raises:
        ListconError: the file is no TREC run; names the line.
    """

    kind = "run-file"
    reads_texts = False

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        with self.phases.measured("load"):
            self.run = read_trec_run(path)
        self.name = name_of_file(path)
        self.revision = short_hash(path)
        self._left_out = {"candidates": 0, "queries": 0}

    @classmethod
    def load(cls, found: Found, options: Options) -> Self:
        """Read the file."""
        del options
        return cls(Path(found.given).expanduser())

    def rank(self, lists: Sequence[CandidateList], mode: str, job: Job) -> list[RankedList]:
        """Look the scores up.

        Raises:
            ListconError: the file has queries or documents that the task does not have, or lacks a query.
        """
        del mode
        self._check_queries(lists, job.task.name)
        with self.phases.measured("score"):
            ranked = [self._ranked(row, job.task.name) for row in lists]
        absent = [sum(doc_id not in self.run[row.query_id] for doc_id in row.doc_ids) for row in lists]
        self._left_out = {"candidates": sum(absent), "queries": sum(count > 0 for count in absent)}
        if any(absent):
            logger.warning(
                "%s leaves out %d candidates of %d queries of %s: they rank behind the others, tied",
                self.path,
                *self._left_out.values(),
                job.task.name,
            )
        return ranked

    def _check_queries(self, lists: Sequence[CandidateList], task: str) -> None:
        wanted = {row.query_id for row in lists}
        unknown = [query_id for query_id in self.run if query_id not in wanted]
        missing = [query_id for query_id in wanted if query_id not in self.run]
        if unknown:
            raise ListconError(
                f"{self.path} has {len(unknown)} of {len(self.run)} queries that {task} has no candidates for, such as "
                f"{unknown[0]!r}; those of the task are such as {lists[0].query_id!r}. A run file is of one task: name "
                "it with --tasks or --data"
            )
        if missing:
            raise ListconError(
                f"{self.path} lacks {len(missing)} of the {len(wanted)} queries of {task}, such as {min(missing)!r}: "
                "a mean over the others would be none of the task; make the run for all of them"
            )

    def _ranked(self, row: CandidateList, task: str) -> RankedList:
        scores = self.run[row.query_id]
        unknown = scores.keys() - set(row.doc_ids)
        if unknown:
            raise ListconError(
                f"{self.path}, query {row.query_id}: {len(unknown)} of {len(scores)} documents are no candidates of "
                f"that query in {task}, such as {min(unknown)!r}; its candidates are such as {row.doc_ids[0]!r}"
            )
        lowest = min(scores.values())
        last = lowest - max(1.0, abs(lowest))  # a step that float32 sees, in which mteb compares scores
        return RankedList(tuple(scores.get(doc_id, last) for doc_id in row.doc_ids), (0,) * len(row.doc_ids))

    def key(self) -> Mapping[str, Any]:
        """The file's content."""
        return {"content": short_hash(self.path)}

    def provenance(self) -> Mapping[str, Any]:
        """The file, and what it left out."""
        return {"model": {"location": str(self.path), "left_out": dict(self._left_out)}}
