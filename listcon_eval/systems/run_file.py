"""A TREC run that was made elsewhere: its scores, for the candidates of a task."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from listcon_eval.data.trec import has_only_ranks, read_trec_run, short_hash
from listcon_eval.errors import ListconError, count_of
from listcon_eval.ordering import ranked_list
from listcon_eval.records import NOT_RETRIEVED, CandidateList
from listcon_eval.systems.base import LoadOptions, RankContext, Ranking, System
from listcon_eval.systems.resolve import ModelSpec, safe_name

logger = logging.getLogger(__name__)


class RunFile(System):
    """The scores of a TREC run file.

    Query and document ids have to be those of the task, and every query that has candidates has to be in the file.
    A candidate that the file does not list counts as not retrieved, as in trec_eval: it has no rank. Tools cut their
    runs at some rank, so this is common; a warning and `Ranking.observed` say how many there are.

    Raises:
        ListconError: the file is no TREC run; names the line.
    """

    kind = "run-file"
    reads_texts = False
    scores_all = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = f"run-file/{safe_name(path.name)}"
        self.revision = short_hash(path)
        if has_only_ranks(path):
            logger.warning(
                "%s: all scores of a query are equal, so its documents are tied. Only scores are read, as in "
                "trec_eval, and never the ranks",
                path,
            )

    @classmethod
    def load(cls, spec: ModelSpec, options: LoadOptions) -> Self:
        """Read the file."""
        return cls(Path(spec.given).expanduser())

    def _rank(self, lists: Sequence[CandidateList], mode: str, context: RankContext) -> Ranking:
        with context.phases.measured("score"):
            run = self._read(lists)
            ranked = [
                ranked_list([run[row.query_id].get(doc_id, NOT_RETRIEVED) for doc_id in row.doc_ids]) for row in lists
            ]
        absent = [row.scores.count(NOT_RETRIEVED) for row in ranked]
        observed = {"not_retrieved": {"candidates": sum(absent), "queries": sum(count > 0 for count in absent)}}
        if any(absent):
            logger.warning(
                "%s does not list %s of %s of %s: not retrieved, and without a rank, as in trec_eval",
                self.path,
                count_of(observed["not_retrieved"]["candidates"], "candidate"),
                count_of(observed["not_retrieved"]["queries"], "query"),
                context.task.name,
            )
        return Ranking(ranked, {}, observed)

    def _read(self, lists: Sequence[CandidateList]) -> dict[str, dict[str, float]]:
        return read_trec_run(self.path, {row.query_id: row.doc_ids for row in lists})

    def unrankable(self, lists: Sequence[CandidateList], task: str) -> dict[str, str]:
        """Nothing: a file that is not of the task is refused as a whole."""
        lists = [row for row in lists if row.doc_ids]
        run = self._read(lists)
        wanted = {row.query_id for row in lists}
        if lists and (unknown := [query_id for query_id in run if query_id not in wanted]):
            raise ListconError(
                f"{self.path} has {count_of(len(unknown), 'query')} that {task} has no candidates for, such as "
                f"{unknown[0]!r}; those of the task are such as {lists[0].query_id!r}. A run file is of one task: name "
                "it with --tasks or --data"
            )
        if missing := wanted - run.keys():
            raise ListconError(
                f"{self.path} lacks {count_of(len(missing), 'query')} of {task} (of {len(wanted)}), such as "
                f"{min(missing)!r}: a mean over the others would not be the task's; make the run for all of them"
            )
        for row in lists:
            if others := run[row.query_id].keys() - set(row.doc_ids):
                raise ListconError(
                    f"{self.path}, query {row.query_id}: {count_of(len(others), 'document')} not among that "
                    f"query's candidates in {task}, such as {min(others)!r}; these are such as {row.doc_ids[0]!r}"
                )
        return {}

    def provenance(self) -> Mapping[str, Any]:
        """The file."""
        return {"location": str(self.path)}
