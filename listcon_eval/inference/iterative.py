"""From features to scores: conventional and iterative inference over many lists at once.

Source: arXiv 2501.07111. Conventional inference scores all passages of a query as one list. Iterative inference
ranks a long list from the tail: while more than 20 passages remain, score them, and drop the lowest fifth (at least
10) with score + round. Where the published loop misbehaves (all scores equal, equal texts, one passage) this one
does not: every passage keeps its own place, and equal texts get equal scores.

In float16 passages are ranked, tied and dropped by the float16 sigmoid, as published. In the other dtypes the logits
decide, which do not saturate.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from listcon_eval.errors import ListconError
from listcon_eval.files import sha256_of_texts
from listcon_eval.inference.chunks import cut
from listcon_eval.inference.devices import Workers, to_device
from listcon_eval.inference.encoder import nonfinite_weights
from listcon_eval.inference.features import FeatureStore
from listcon_eval.inference.memory import BatchBudget
from listcon_eval.inference.tokens import IndexedList, pad
from listcon_eval.model import ListConModel
from listcon_eval.ordering import levels_of, ranked_list
from listcon_eval.records import DType, Mode, RankedList

LAST_ROUND_SIZE = 20
MIN_DROP = 10
DROPPED_SHARE = 0.2
_MIN_ROWS = 256  # of a batch that is made small so that every worker has one


class ListState:
    """One list in its rounds: which of its passages remain, and the keys, scores and rounds of those that left."""

    def __init__(self, source: IndexedList, start: int) -> None:
        self.source = source
        self.start = start  # the place of its first passage among those of all lists
        self.remaining = np.arange(len(source.passages))
        self.keys = np.full(len(source.passages), np.nan)
        self.scores = np.full(len(source.passages), np.nan)
        self.rounds = np.zeros(len(source.passages), dtype=np.int64)

    def finish_round(self, number: int, keys: NDArray[np.float64], scores: NDArray[np.float64], mode: Mode) -> None:
        """Drop the tail of a long list, all of a short one; keys and scores are the remaining passages', in order."""
        if self.source.first is not None:
            # Equal texts have equal features, but a row of a matrix product may round by its place in the batch.
            same = np.searchsorted(self.remaining, self.source.first[self.remaining])
            keys, scores = keys[same], scores[same]
        dropped = np.ones(len(self.remaining), dtype=bool)
        if mode == "iterative" and len(self.remaining) > LAST_ROUND_SIZE:
            count = max(MIN_DROP, math.ceil(DROPPED_SHARE * len(self.remaining)))
            dropped = keys <= np.partition(keys, count - 1)[count - 1]  # the k lowest, and ties with the k-th
        places = self.remaining[dropped]
        self.keys[places], self.scores[places], self.rounds[places] = keys[dropped], scores[dropped], number
        self.remaining = self.remaining[~dropped]

    def result(self, dtype: DType) -> RankedList:
        """The final scores: score + round, and the order and ties that the dtype has."""
        scores = self.scores + self.rounds
        levels = None if dtype == "float16" or np.isnan(scores).any() else levels_of(self.rounds, self.keys)
        return ranked_list(scores, rounds=self.rounds.tolist(), levels=levels)


@torch.inference_mode()
def rank_features(
    model: ListConModel,
    store: FeatureStore,
    lists: Sequence[IndexedList],
    *,
    mode: Mode,
    dtype: DType,
    budget: BatchBudget,
    keep_going: bool = False,
) -> list[RankedList]:
    """Rank lists over texts whose features are known; rounds of many lists run together.

    Dtype "float16" ranks by the sigmoid in float16; the others by the logit, whose sigmoid is taken in float64. The
    budget is of rows (queries and passages). With `keep_going` a list whose scores are not numbers gets NaN for them.

    Raises:
        ListconError: a score is not a number (names the query), or a list does not fit into the device's memory.
    """
    starts = np.cumsum([0, *(len(source.passages) for source in lists)])
    states = [ListState(source, start) for source, start in zip(lists, starts.tolist(), strict=False)]
    by_score = dtype == "float16"
    pointwise = torch.empty(int(starts[-1]), device=store.device)  # each passage's part that no round changes
    remaining, number = states, 0

    def keys_of(batch: Sequence[ListState]) -> Tensor:
        logits = budget.run(lambda part: _logits(model, store, part, pointwise, is_first=number == 0), batch, _rows)
        return torch.sigmoid(logits.half()) if by_score else logits

    with Workers(store.device) as workers:
        while remaining:
            remaining = sorted(remaining, key=_rows)
            share = -(-sum(map(_rows, remaining)) // workers.count)
            batches = list(_batches(remaining, min(budget.size, max(_MIN_ROWS, share))))
            computed = torch.cat([part.result() for part in workers.start(keys_of, batches)])
            values = computed.cpu().numpy().astype(np.float64)  # the only copy from the device in a round
            for state in remaining:
                keys, values = np.split(values, [len(state.remaining)])
                if not np.isnan(keys).any():
                    state.finish_round(number, keys, keys if by_score else _sigmoid(keys), mode)
                elif keep_going:
                    state.scores[:] = np.nan
                    state.remaining = state.remaining[:0]
                else:
                    raise _not_a_number(model, state, keys)
            remaining = [state for state in remaining if len(state.remaining)]
            number += 1
    store.release_memory()
    return [state.result(dtype) for state in states]


@torch.inference_mode()
def _logits(
    model: ListConModel, store: FeatureStore, states: Sequence[ListState], pointwise: Tensor, *, is_first: bool
) -> Tensor:
    """The logits of the remaining passages of every list, one after the other; the first round fills `pointwise`."""
    passages, own = pad([state.source.passages[state.remaining] for state in states])  # (B, P)
    queries = np.array([[state.source.query] for state in states])
    # A row of padding is given the query's feature; `valid` masks it.
    indices = np.concatenate([queries, np.where(own, passages, queries)], axis=1)  # (B, S)
    valid = np.concatenate([np.ones_like(queries, dtype=bool), own], axis=1)
    features = store.get(indices)  # (B, S, D)
    # The places of the passages are computed here: asking the device for them would wait for it.
    places = to_device(np.flatnonzero(own), store.device)
    kept = to_device(np.concatenate([state.start + state.remaining for state in states]), store.device)
    if is_first:
        pointwise[kept] = model.pointwise_logits(features).flatten()[places]
    listwise = model.listwise_logits(features, to_device(valid, store.device)).flatten()[places]
    # A large bias must not round away what tells passages apart, so logits are summed in float64 where it exists.
    precise = torch.float32 if store.device.type == "mps" else torch.float64
    return pointwise[kept].to(precise) + listwise.to(precise) + model.linear_score1.bias.to(precise)


def _rows(state: ListState) -> int:
    return 1 + len(state.remaining)


def _batches(states: Sequence[ListState], rows: int) -> Iterator[Sequence[ListState]]:
    """Cut lists, sorted by size, into batches of at most `rows` padded rows (or of a single list)."""
    start = 0
    for end in range(1, len(states) + 1):
        if end == len(states) or _rows(states[end]) * (end + 1 - start) > rows:
            yield states[start:end]
            start = end


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logistic function in float64, on the side where the exponential does not overflow."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)


def _not_a_number(model: ListConModel, state: ListState, keys: NDArray[np.float64]) -> ListconError:
    cause = nonfinite_weights(model) or (
        "the weights are finite, so a value overflowed on the way: try the dtype float32 (--dtype float32)"
    )
    bad = int(np.isnan(keys).sum())
    return ListconError(f"{state.source.name}: {bad} of {len(keys)} scores are not numbers; {cause}")


def groups_of(lists: Sequence[IndexedList], passages: int) -> list[Sequence[IndexedList]]:
    """Cut lists, in their order, into groups of at most `passages` passages (or of a single list)."""
    return [lists[part] for part in cut([len(row.passages) for row in lists], passages)]


def group_name(mode: Mode, texts: Sequence[str], group: Sequence[IndexedList]) -> str:
    """A cache name for the ranking of a group: it follows the mode and every text of the group, in order."""
    parts = (
        part
        for row in group
        for part in (str(len(row.passages)), texts[row.query], *(texts[index] for index in row.passages))
    )
    return f"{mode}-{sha256_of_texts(parts)[:32]}"


def to_array(results: Sequence[RankedList]) -> NDArray[np.float64]:
    """Scores and rounds of lists as one array, (2, passages)."""
    scores = [score for result in results for score in result.scores]
    rounds = [number for result in results for number in result.rounds]
    return np.array([scores, rounds], dtype=np.float64)


def from_array(array: NDArray[np.generic], group: Sequence[IndexedList]) -> list[RankedList]:
    """The lists that `to_array` made an array of."""
    ends = np.cumsum([len(row.passages) for row in group])[:-1]
    parts = zip(np.split(array[0], ends), np.split(array[1], ends), strict=True)
    return [RankedList(tuple(map(float, scores)), tuple(map(int, rounds))) for scores, rounds in parts]
