"""Whether data is that of an official task: its statistics against those that mteb ships."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from listcon_eval.data.quiet import no_progress_bars

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mteb.abstasks.retrieval import AbsTaskRetrieval

# Not comparable: the shipped files were made by an mteb that counted judgements of 0 as relevant in these two
# (100 of 100 candidates for CMedQAv1); today's mteb leaves them out. Statistics that only today's mteb has
# are not compared either, for want of a shipped value.
_NOT_COMPARABLE = ("min_relevant_docs_per_query", "max_relevant_docs_per_query")


class Difference(NamedTuple):
    """A statistic in which data differs from the official data.

    Attributes:
        statistic: its name in mteb's files, with the group's name before a dot.
        official: the shipped value.
        found: the data's own value; None when it has none.
    """

    statistic: str
    official: float
    found: float | None


def differences(mteb_task: AbsTaskRetrieval, split: str, shipped: Mapping[str, Any]) -> list[Difference]:
    """Compare a loaded task with shipped statistics.

    Args:
        mteb_task: a task that holds its data.
        split: the split to look at.
        shipped: the official split's statistics, as in `TaskMetadata.descriptive_stats`.

    Returns:
        The statistics that differ; none when the data is, as far as these tell, the official data.
    """
    # Not the public `calculate_descriptive_statistics`: it answers from the shipped file, or overwrites that
    # file.
    with no_progress_bars():
        found = mteb_task._calculate_descriptive_statistics_from_split(split)
    own = dict(_flat(found))
    return [
        Difference(name, value, own.get(name))
        for name, value in _flat(shipped)
        if name not in own or not math.isclose(value, own[name], rel_tol=1e-9)
    ]


def _flat(statistics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in statistics.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None and name not in _NOT_COMPARABLE:
            yield f"{prefix}{name}", value
