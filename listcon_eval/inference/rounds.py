"""From features to scores: conventional and iterative inference over many lists at once.

Source: arXiv 2501.07111. Conventional inference scores all passages of a query as one list. Iterative inference
ranks a long list from the tail: while more than 20 passages are alive, score them, and let the lowest fifth (at least
10) leave with score + round. Where the published loop misbehaves (all scores equal, equal texts, one passage) this one
does not: every passage keeps its own place, and equal texts get equal scores.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from listcon_eval.errors import ListconError
from listcon_eval.inference.budgets import Budgets
from listcon_eval.inference.features import FeatureStore
from listcon_eval.inference.layouts import moved
from listcon_eval.inference.texts import IndexedList
from listcon_eval.inference.workers import Workers
from listcon_eval.model import ListConModel
from listcon_eval.records import Mode, Precision, RankedList

LAST_ROUND_SIZE = 20
SMALLEST_DROP = 10
DROPPED_SHARE = 0.2
_FEWEST_ROWS = 256  # of a batch that is made small so that every worker has one


class _Ranking:
    """One list on its way through the rounds: which of its passages are alive, and how the others left."""

    def __init__(self, source: IndexedList, start: int) -> None:
        self.source = source
        self.start = start  # the place of its first passage among those of all lists
        self.alive = np.arange(len(source.passages))
        self.scores = np.empty(len(source.passages), dtype=np.float64)
        self.rounds = np.zeros(len(source.passages), dtype=np.int64)

    def give_up(self) -> None:
        """Leave the list without scores."""
        self.scores[:] = np.nan
        self.alive = self.alive[:0]

    def finish_round(self, number: int, keys: NDArray[np.floating], scores: NDArray[np.float64], mode: Mode) -> None:
        """Let passages leave: the tail of a long list, everything of a short one.

        Args:
            number: the round's number.
            keys: what ranks the alive passages, (alive,).
            scores: their scores, (alive,).
            mode: the inference mode.
        """
        if self.source.first is not None:
            # Equal texts have equal features, but a row of a matrix product may round by its place in the batch.
            same = np.searchsorted(self.alive, self.source.first[self.alive])
            keys, scores = keys[same], scores[same]
        leaving = np.ones(len(self.alive), dtype=bool)
        if mode == "iterative" and len(self.alive) > LAST_ROUND_SIZE:
            count = max(SMALLEST_DROP, math.ceil(DROPPED_SHARE * len(self.alive)))
            leaving = keys <= np.partition(keys, count - 1)[count - 1]
        self.scores[self.alive[leaving]] = scores[leaving] + number
        self.rounds[self.alive[leaving]] = number
        self.alive = self.alive[~leaving]


@torch.inference_mode()
def rank_features(
    model: ListConModel,
    store: FeatureStore,
    lists: Sequence[IndexedList],
    *,
    mode: Mode,
    precision: Precision,
    budgets: Budgets,
    keep_going: bool = False,
) -> list[RankedList]:
    """Rank lists whose texts' features are known; rounds of many lists run together.

    Args:
        model: the model, on its device and in its precision.
        store: the features of the texts.
        lists: the lists over those texts.
        mode: conventional or iterative inference.
        precision: "published" ranks by the sigmoid in the model's own precision; the others by the float32 logit,
            its sigmoid taken in float64.
        budgets: what may be held at once.
        keep_going: whether a list whose scores are not numbers is passed over: its scores are NaN then.

    Returns:
        One `RankedList` a list, in their order.

    Raises:
        ListconError: when a score is not a number, naming the query.
    """
    starts = np.cumsum([0, *(len(source.passages) for source in lists)])
    rankings = [_Ranking(source, start) for source, start in zip(lists, starts.tolist(), strict=False)]
    with Workers(store.device) as workers:
        scorer = _Scorer(model, store, int(starts[-1]), precision, budgets, workers)
        _go_through_rounds(scorer, rankings, mode, keep_going)
    store.forget()
    return [RankedList(tuple(ranking.scores.tolist()), tuple(ranking.rounds.tolist())) for ranking in rankings]


def _go_through_rounds(scorer: "_Scorer", rankings: list[_Ranking], mode: Mode, keep_going: bool) -> None:
    active = rankings
    number = 0
    while active:
        active = sorted(active, key=lambda ranking: len(ranking.alive))
        values = scorer.score(active, number)
        start = 0
        for ranking in active:
            keys = values[start : start + len(ranking.alive)]
            start += len(ranking.alive)
            if np.isnan(keys).any():
                if not keep_going:
                    raise _not_a_number(scorer.model, ranking, keys)
                ranking.give_up()
                continue
            scores = keys.astype(np.float64)
            ranking.finish_round(number, keys, scores if scorer.by_score else _sigmoid(scores), mode)
        active = [ranking for ranking in active if len(ranking.alive)]
        number += 1


class _Scorer:
    """Scores the alive passages of lists, round by round, and keeps what no round changes."""

    def __init__(
        self,
        model: ListConModel,
        store: FeatureStore,
        passages: int,
        precision: Precision,
        budgets: Budgets,
        workers: Workers,
    ) -> None:
        self.model, self._store, self._workers, self._rows = model, store, workers, budgets.rows
        self.by_score = precision == "published"
        self._format = model.linear_score1.weight.dtype
        self._before = torch.empty(passages, device=store.device)  # each passage's part that no round changes

    def score(self, active: Sequence[_Ranking], number: int) -> NDArray[np.floating]:
        """What ranks the alive passages of every list in this round, one after the other: scores, or else logits."""
        whole = sum(1 + len(ranking.alive) for ranking in active)
        rows = min(self._rows, max(_FEWEST_ROWS, -(-whole // self._workers.count)))
        batches = list(_batches(active, rows))
        parts = self._workers.map(lambda batch: self._of_batch(batch, number), batches)
        values: NDArray[np.floating] = torch.cat(parts).cpu().numpy()  # the only copy from the device in a round
        return values

    @torch.inference_mode()
    def _of_batch(self, batch: Sequence[_Ranking], number: int) -> Tensor:
        device, longest = self._store.device, len(batch[-1].alive)
        indices = np.empty((len(batch), 1 + longest), dtype=np.int64)
        valid = np.zeros((len(batch), 1 + longest), dtype=bool)
        for row, ranking in enumerate(batch):
            alive = len(ranking.alive)
            indices[row] = ranking.source.query  # in row 0 as itself, in the rest as padding that is masked
            indices[row, 1 : 1 + alive] = ranking.source.passages[ranking.alive]
            valid[row, : 1 + alive] = True
        features = self._store.get(indices)  # (B, S, D)
        # The places of what is no padding are known here: asking the device for them would wait for it.
        places = moved(np.flatnonzero(valid[:, 1:]), device)
        kept = moved(np.concatenate([ranking.start + ranking.alive for ranking in batch]), device)
        if number == 0:
            self._before[kept] = self.model.logits_before(features).flatten()[places]
        after = self.model.logits_after(features, moved(valid, device)).flatten()[places]
        logits = (self._before[kept] + after).to(self._format)
        return torch.sigmoid(logits) if self.by_score else logits


def _batches(active: Sequence[_Ranking], rows: int) -> Iterator[Sequence[_Ranking]]:
    """Cut lists, sorted by size, into batches of at most `rows` padded rows (or of a single list)."""
    start = 0
    for end in range(1, len(active) + 1):
        if end == len(active) or (1 + len(active[end].alive)) * (end + 1 - start) > rows:
            yield active[start:end]
            start = end


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logistic function in float64, on the side where the exponential does not overflow."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)


def _not_a_number(model: ListConModel, ranking: _Ranking, keys: NDArray[np.floating]) -> ListconError:
    bad = [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]
    if bad:
        cause = f"the model's weights are not finite: {', '.join(bad[:5])}{' and more' if len(bad) > 5 else ''}"
    else:
        cause = "the weights are finite, so a value overflowed on the way: try the precision 'precise'"
    return ListconError(
        f"{ranking.source.name}: {int(np.isnan(keys).sum())} of {len(keys)} scores are not a number; {cause}"
    )
