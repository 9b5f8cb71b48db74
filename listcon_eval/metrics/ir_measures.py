"""Metrics of free choice, by the names of the library ir_measures: AP, nDCG@10, RR@10, R@50.

The library computes them with several tools, each with its own order of ties and its own idea of an id. So they are
given ranks instead of scores (by score, ties by document id, descending, as trec_eval and mteb order them), and
numbers instead of ids.
"""

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

import ir_measures

from listcon_eval.errors import ListconError, count_of, did_you_mean
from listcon_eval.records import Metrics

Judgements = Mapping[str, Mapping[str, int]]
Run = Mapping[str, Mapping[str, float]]
_TRIAL_RUN: Run = {query_id: {"a": 3.0, "b": 2.0, "c": 1.0} for query_id in ("usual", "none", "all")}
_TRIAL: tuple[Judgements, Run] = (
    {"usual": {"a": 1, "b": 0, "c": 1}, "none": {"a": 0, "d": 1}, "all": {"a": 1, "b": 1, "c": 1}},
    _TRIAL_RUN,
)
_MAX_NUMBER = 10**6
# what the tools behind the library raise
_ERRORS = (ValueError, TypeError, ArithmeticError, AssertionError, OSError, RuntimeError, subprocess.SubprocessError)


def metric_names(given: str | Iterable[str], relevance: int = 1) -> list[str]:
    """The library's own names of metrics, each once; a text may hold several, separated by white space.

    Raises:
        ListconError: the library has no metric of a name, or cannot compute it here, its values are not 0 to 1, or it
            states `rel=1`, which those names leave out, where `relevance` is another.
    """
    if isinstance(given, str) and not given.strip():
        raise ListconError(f"{given!r} names no metric: give names of ir_measures, such as AP nDCG@10 RR@10 R@50")
    names = []
    for word in given.split() if isinstance(given, str) else given:
        name = _name(word, relevance)
        (value,) = evaluate([name], *_TRIAL).means.values()
        if not 0 <= value <= 1 or name.startswith("Num"):
            raise ListconError(f"the metric {word} counts (here {value:g}): give one whose values are 0 to 1")
        names.append(name)
    return list(dict.fromkeys(names))


def _name(given: str, relevance: int) -> str:
    try:
        metric = ir_measures.parse_measure(given)
        metric.validate_params()
        ir_measures.parse_measure(str(metric))  # the name that results have
    except AssertionError as error:
        raise ListconError(
            f"the metric {given}: its parameters are {', '.join(metric.SUPPORTED_PARAMS)}, as in P(rel=2)@10"
        ) from error
    except (ValueError, NameError, TypeError) as error:
        hint = did_you_mean(given, ir_measures.measures.registry)
        raise ListconError(
            f"no metric {given!r}{hint}: {error}. Give names of ir_measures, such as AP, nDCG@10, RR@10, R@50"
        ) from error
    for parameter in ("cutoff", "rel"):
        if not 1 <= metric.params.get(parameter, 1) <= _MAX_NUMBER:  # trec_eval would end the process
            raise ListconError(
                f"the metric {given}: {parameter} is {metric.params[parameter]}: give 1 to {_MAX_NUMBER}"
            )
    if relevance > 1 and metric.params.get("rel") == 1:
        raise ListconError(
            f"the metric {given}: its rel=1 cannot be told from none, which is --relevance {relevance} here: measure "
            "it in a run without --relevance"
        )
    return str(metric)


def evaluate(names: Sequence[str], qrels: Judgements, run: Run, relevance: int = 1) -> Metrics:
    """Metrics of a run.

    Args:
        names: as `metric_names` gives them.
        qrels: query id -> document id -> relevance.
        run: query id -> document id -> score, of the same queries. One without documents counts 0.
        relevance: the judgement from which on a document is relevant, for metrics that know relevant and not alone, and
            whose names state no `rel` of their own.

    Returns:
        Means over all queries, and values by query, by name.

    Raises:
        ListconError: the library cannot compute one of them.
    """
    metrics = {name: _with_relevance(ir_measures.parse_measure(name), relevance) for name in names}
    judged: dict[str, dict[str, int]] = {}
    ranks: dict[str, dict[str, float]] = {}
    for number, (query_id, row) in enumerate(run.items()):
        ordered = sorted(row, key=lambda doc_id: (row[doc_id], doc_id), reverse=True)
        places = {doc_id: str(place) for place, doc_id in enumerate(dict.fromkeys([*ordered, *qrels[query_id]]))}
        if ordered:  # a query that is not in the run has the metric's own default
            ranks[str(number)] = {str(place): -float(place) for place in range(len(ordered))}
        judged[str(number)] = {places[doc_id]: max(value, -1) for doc_id, value in qrels[query_id].items()}
    try:
        found = {
            (row.query_id, row.measure): row.value for row in ir_measures.iter_calc({*metrics.values()}, judged, ranks)
        }
    except _ERRORS as error:
        raise ListconError(f"ir_measures cannot compute {' '.join(names)}: {error}") from error
    for name, metric in metrics.items():
        if undefined := [query_id for number, query_id in enumerate(run) if (str(number), metric) not in found]:
            raise ListconError(
                f"ir_measures has no {name} of {count_of(len(undefined), 'query')} (of {len(run)}), such as "
                f"{undefined[0]!r}: give a metric that is defined for every query"
            )
    per_query = {
        query_id: {name: float(found[str(number), metric]) for name, metric in metrics.items()}
        for number, query_id in enumerate(run)
    }
    means = {name: fmean(row[name] for row in per_query.values()) for name in names}
    return Metrics(means, per_query)


def _with_relevance(metric: ir_measures.Measure, relevance: int) -> ir_measures.Measure:
    is_binary = "rel" in metric.SUPPORTED_PARAMS and "rel" not in metric.params
    return metric(rel=relevance) if relevance > 1 and is_binary else metric
