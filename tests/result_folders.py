"""Result folders made by `evaluate` with a tiny system in place of a model."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from datasets import Dataset

from listcon_eval import evaluate
from listcon_eval.data import Task, official_task
from listcon_eval.files import sha256_of_file
from listcon_eval.ordering import ranked_list
from listcon_eval.records import CandidateList
from listcon_eval.results import Result
from listcon_eval.results.records import MANIFEST
from listcon_eval.systems.base import LoadOptions, RankContext, Ranking, System
from listcon_eval.systems.resolve import ModelSpec

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class ScoresByText(System):
    """Scores a passage by a hash of its text; in iterative mode the lower half leaves in a first round."""

    kind: ClassVar[str] = "listconranker"
    modes: ClassVar[tuple[str, ...]] = ("conventional", "iterative")

    def __init__(self, name: str, revision: str, metadata: Mapping[str, Any]) -> None:
        self.name, self.revision, self._metadata = name, revision, metadata
        self.dtype = "float32"

    @classmethod
    def load(cls, spec: ModelSpec, options: LoadOptions) -> Self:
        del options
        return cls(spec.given, COMMIT, {})

    def _rank(self, lists: Sequence[CandidateList], mode: str, context: RankContext) -> Ranking:
        with context.phases.measured("list"):
            return Ranking([self._ranked(row, mode) for row in lists], {}, {"truncated_texts": 0})

    def _ranked(self, row: CandidateList, mode: str) -> Any:  # noqa: ANN401
        scores = [random.Random(f"{row.query}{text}").random() for text in row.passages]
        if mode == "conventional":
            return ranked_list(scores)
        median = sorted(scores)[len(scores) // 2]
        rounds = [int(score >= median) for score in scores]
        return ranked_list([score + number for score, number in zip(scores, rounds, strict=True)], rounds=rounds)

    def model_metadata(self) -> Mapping[str, Any]:
        return self._metadata


def evaluated(
    output: Path,
    tasks: Sequence[Task],
    *,
    name: str = "org/ranker",
    revision: str = COMMIT,
    metadata: Mapping[str, Any] | None = None,
) -> list[Result]:
    """The results of a tiny system on tasks, in both modes."""
    system = ScoresByText(name, revision, metadata or {})
    return evaluate(system, tasks, output=output).results


def task_of(lists: Mapping[str, Sequence[tuple[str, int]]], task: Task) -> Task:
    """A task with the data of lists: query -> passages with their relevance; candidates in that order."""
    from listcon_eval.data.tasks import set_data

    texts = list(dict.fromkeys(text for rows in lists.values() for text, _ in rows))
    ids = {text: f"d{place}" for place, text in enumerate(texts)}
    queries = {f"q{place}": query for place, query in enumerate(lists)}
    data: Any = {
        "corpus": Dataset.from_list([{"id": ids[text], "title": "", "text": text} for text in texts]),
        "queries": Dataset.from_list([{"id": key, "text": query} for key, query in queries.items()]),
        "relevant_docs": {key: {ids[text]: value for text, value in lists[query]} for key, query in queries.items()},
        "top_ranked": {key: [ids[text] for text, _ in lists[query]] for key, query in queries.items()},
    }
    set_data(task.mteb_task, task.split, data, task.subset)
    return task


def official_stand_in(name: str) -> Task:
    """A task that says it is official and has as many queries, over made-up texts."""
    official = official_task(name)
    lists = {
        f"query {place}": [(f"passage {place * 7 % 60 + step}", int(step == 0)) for step in range(4)]
        for place in range(official.shipped_sizes()[0])
    }
    return task_of(lists, official)


def change_json(path: Path, **changes: Any) -> None:  # noqa: ANN401
    """Change fields of a JSON file; a name with dots is a path in it."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for name, value in changes.items():
        *parents, last = name.split(".")
        place = content
        for parent in parents:
            place = place[int(parent) if isinstance(place, list) else parent]
        place[last] = value
    path.write_text(json.dumps(content), encoding="utf-8")


def sealed_again(result: Result) -> None:
    """Make a run's manifest agree with its files, as someone who changes results on purpose would."""
    manifest = result.file(MANIFEST)
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content["sha256"] = {name: sha256_of_file(result.folder / name) for name in content["sha256"]}
    manifest.write_text(json.dumps(content), encoding="utf-8")
