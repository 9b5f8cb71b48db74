"""Training lists: which queries have both classes, what is set aside, and which passages stand in a step's lists."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from listcon_eval.errors import ListconError
from listcon_eval.inference.texts import index_texts
from listcon_eval.records import CandidateList


class TrainingList(NamedTuple):
    """One query with its passages, as indices of distinct texts.

    Attributes:
        name: the query's id, for messages.
        query: the query's index.
        positives: distinct relevant passages, at least one.
        negatives: distinct other passages, at least one. A text that was judged both ways is a positive.
    """

    name: str
    query: int
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]


class TrainingData(NamedTuple):
    """The lists that can be trained on, and the ones that cannot.

    Attributes:
        texts: the distinct texts.
        lists: the lists of two classes.
        skipped: how many lists had one class only.
    """

    texts: list[str]
    lists: list[TrainingList]
    skipped: int


class SampledList(NamedTuple):
    """The passages of one list in one step.

    Attributes:
        name: the query's id.
        query: the query's index.
        passages: the passages' indices, positives first, (P,).
        positives: how many of them are positives.
    """

    name: str
    query: int
    passages: NDArray[np.int64]
    positives: int


def set_aside(
    lists: Sequence[CandidateList], share: float, seed: int
) -> tuple[list[CandidateList], list[CandidateList]]:
    """Split lists into those to train on and a random share for evaluation; equal query texts stay together.

    Raises:
        ListconError: when the share leaves nothing to train on.
    """
    if share == 0:
        return list(lists), []
    queries = list(dict.fromkeys(row.query for row in lists))
    count = max(1, round(share * len(queries)))
    if count >= len(queries):
        raise ListconError(
            f"setting aside {share:g} of {len(queries)} distinct queries leaves none to train on: give a smaller "
            f"share, or other evaluation data"
        )
    chosen = np.random.default_rng([seed, len(queries)]).permutation(len(queries))[:count]
    held = {queries[index] for index in chosen}
    return [row for row in lists if row.query not in held], [row for row in lists if row.query in held]


def training_data(lists: Sequence[CandidateList]) -> TrainingData:
    """Index the distinct texts of lists and part their passages into two classes.

    Raises:
        ListconError: when no list has both classes.
    """
    usable = [row for row in lists if row.passages]
    texts, indexed = index_texts(
        [row.query for row in usable], [row.passages for row in usable], [row.query_id for row in usable]
    )
    kept = []
    for row, places in zip(usable, indexed, strict=True):
        relevant = np.array(row.relevance) > 0
        positives = np.unique(places.passages[relevant])
        negatives = np.setdiff1d(places.passages[~relevant], positives)
        if len(positives) and len(negatives):
            kept.append(TrainingList(row.query_id, places.query, positives, negatives))
    if not kept:
        raise ListconError(
            f"none of the {len(lists)} training lists has both a relevant and another passage: there is "
            f"nothing to learn"
        )
    return TrainingData(texts, kept, len(lists) - len(kept))


def repeated(lists: Sequence[TrainingList], times: Mapping[str, int]) -> list[TrainingList]:
    """Lists, some of them several times: a kind of which there are few then has its share of an epoch.

    Args:
        lists: the lists.
        times: how often lists come, by what their names (query ids) begin with; where several fit, the longest counts.

    Raises:
        ListconError: when no list's name begins so.
    """
    for start in times:
        if not any(row.name.startswith(start) for row in lists):
            raise ListconError(
                f"no training list has a query id that begins with {start!r}; theirs are such as {lists[0].name!r}"
            )
    longest_first = sorted(times, key=len, reverse=True)
    counts = [next((times[start] for start in longest_first if row.name.startswith(start)), 1) for row in lists]
    return [row for row, count in zip(lists, counts, strict=True) for _ in range(count)]


class ListSampler:
    """Chooses the passages of a list: all positives, and as many negatives as fit.

    Args:
        lists: the training lists.
        size: passages a list. One with more positives than fit keeps all of them, and one negative.
        fill: fill shorter lists with passages of other queries.
    """

    def __init__(self, lists: Sequence[TrainingList], size: int, *, fill: bool) -> None:
        self.size = size
        self.oversize = sum(len(row.positives) >= size for row in lists)
        """How many lists have more positives than fit beside a negative."""
        self._relevant = relevant_by_query(lists)
        passages = [part for row in lists for part in (row.positives, row.negatives)]
        self._others = np.unique(np.concatenate(passages)) if fill else None

    def sample(self, row: TrainingList, rng: np.random.Generator) -> SampledList:
        """The passages of a list for one step."""
        wanted = max(1, self.size - len(row.positives))
        negatives = row.negatives
        if len(negatives) > wanted:
            negatives = rng.choice(negatives, wanted, replace=False)
        elif self._others is not None and len(negatives) < wanted:
            own = np.concatenate([self._relevant[row.query], row.negatives])
            drawn = rng.choice(self._others, min(len(self._others), wanted + len(own)), replace=False)
            strangers = drawn[~np.isin(drawn, own)]  # enough of them: at most len(own) were taken away
            negatives = np.concatenate([negatives, strangers[: wanted - len(negatives)]])
        passages = np.concatenate([row.positives, negatives])
        return SampledList(row.name, row.query, passages, len(row.positives))


def relevant_by_query(lists: Sequence[TrainingList]) -> dict[int, NDArray[np.int64]]:
    """Each query text's positives in all of its lists: what is never its negative, wherever it is drawn from."""
    found: dict[int, list[NDArray[np.int64]]] = {}
    for row in lists:
        found.setdefault(row.query, []).append(row.positives)
    return {query: np.unique(np.concatenate(parts)) for query, parts in found.items()}


def epoch_batches(count: int, batch: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """All of `count` lists in random order, in batches of at most `batch`, as equal in size as can be.

    A short last batch would have its few lists weigh as much as a full batch's many.
    """
    return np.array_split(rng.permutation(count), -(-count // batch))
