"""The results of a model card: the `model-index` of its front matter, and its comparison table.

Only the `model-index` block and the text between the table's markers are replaced; every other byte of a card stays.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from listcon_eval.data import CARD_TASKS, official_task
from listcon_eval.errors import ListconError, first_line_with_class
from listcon_eval.files import write_text
from listcon_eval.publish.eligibility import choose_results, publish_blockers
from listcon_eval.report.table import comparison_tables, has_block, line_break_of, read_markdown, with_block
from listcon_eval.results import Result
from listcon_eval.tables import one_line

_KEY = "model-index"
CARD_METRICS = ("map", "mrr_1", "mrr_10", "mrr_5")  # in the published card's order
_FRONT_MATTER = re.compile(
    r"\A(\ufeff?---[ \t]*(\r\n|\n|\r))(.*?)(^---[ \t]*(?:\r\n|\n|\r|\Z))", re.DOTALL | re.MULTILINE
)
# The line of the key and those below it that are indented or list items; comments and empty lines before the next key
# are that one's own.
_LINE = r"[^\r\n]*(?:\r\n|\n|\r)"
_BLOCK = re.compile(rf"(?:\A|(?<=[\r\n]))[\"']?{_KEY}[\"']?[ \t]*:{_LINE}(?:(?:#{_LINE}|[\r\n])*[ \t-]{_LINE})*")


def _model_index(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The `model-index` of runs: the card's metric names, in percent, with the revision of mteb's copy of the data."""
    cards = {card.name: card for card in CARD_TASKS}
    reasons = [reason for result in results for reason in publish_blockers(result)]
    reasons += [
        f"{result.task} has no place in a model card of these metrics: {', '.join(cards)} have"
        for result in results
        if result.is_official and result.task not in cards
    ]
    if reasons:
        raise ListconError("no model card results:\n" + "\n".join(f"  - {reason}" for reason in reasons))
    rows = []
    for result in results:
        card, task = cards[result.task], official_task(result.task)
        rows += [
            EvalResult(
                task_type="Reranking",
                dataset_type=card.card_dataset,
                dataset_name=card.card_name,
                dataset_config="default",
                dataset_split=task.split,
                dataset_revision=task.revision,
                metric_type=metric,
                metric_value=100 * result.cmteb[metric],
            )
            for metric in CARD_METRICS
        ]
    index: list[dict[str, Any]] = eval_results_to_model_index(results[0].model.rpartition("/")[2], rows)
    return index


def model_card_front_matter(paths: Sequence[Path], mode: str) -> str:
    """The front matter of a model card with the results of one mode, with its `---` lines.

    Raises:
        ListconError: as `choose_results`, or a run may not be published; gives every reason.
    """
    results = choose_results(paths, mode)
    return f"---\n{_block_text(_model_index(results), results)}---"


def _block_text(index: Sequence[Mapping[str, Any]], results: Sequence[Result], line_break: str = "\n") -> str:
    """The `model-index` block as YAML, with the runs' signatures in comments."""
    body = str(yaml.dump({_KEY: list(index)}, sort_keys=False, allow_unicode=True, line_break=line_break))
    key, _, rest = body.partition(line_break)
    return line_break.join([key, *(f"# signature: {one_line(str(result.signature))}" for result in results), rest])


def update_model_card(path: Path, paths: Sequence[Path], mode: str) -> list[str]:
    """Put results into a model card, and say in words what was changed.

    The card's results on the same data are replaced, others stay. A card without front matter gets one. A table between
    `<!-- listcon-eval table -->` and `<!-- end -->` is replaced.

    Raises:
        ListconError: as `model_card_front_matter`; or the card cannot be read, its front matter is not YAML, has
            two keys `model-index` or one that the hub does not read, or a marker has no end.
    """
    results = choose_results(paths, mode)
    index = _model_index(results)
    text = read_markdown(path)
    changed = [f"{_KEY}: {', '.join(result.task for result in results)}"]
    text = _with_front_matter(text, index, results, path)
    if has_block(text):
        text = with_block(text, comparison_tables(results, with_published=True), path)
        changed.append("the comparison table")
    write_text(path, text)
    return changed


def _with_front_matter(text: str, index: list[dict[str, Any]], results: Sequence[Result], path: Path) -> str:
    line_break = line_break_of(text)
    match = _FRONT_MATTER.match(text)
    if match is None:
        return f"---{line_break}{_block_text(index, results, line_break)}---{line_break}{text}"
    header = match[3]
    try:
        known = yaml.safe_load(header) or {}
    except yaml.YAMLError as error:
        raise ListconError(f"{path}: its front matter is not YAML: {error}") from error
    if not isinstance(known, dict):
        raise ListconError(f"{path}: its front matter is a {type(known).__name__}; expected keys with values")
    blocks = [found.span() for found in _BLOCK.finditer(header)]
    if len(blocks) > 1:
        raise ListconError(
            f"{path}: its front matter has {len(blocks)} keys {_KEY}, of which readers take one: leave the right one"
        )
    start, end = blocks[0] if blocks else (len(header), len(header))
    replaced = header[:start] + _block_text(_merged(known.get(_KEY), index, path), results, line_break) + header[end:]
    try:
        is_same = {**known, _KEY: None} == {**yaml.safe_load(replaced), _KEY: None}
    except yaml.YAMLError:
        is_same = False
    if not is_same:
        raise ListconError(
            f"{path}: its front matter is not written as one key a line, so {_KEY} cannot be put in without touching "
            "other keys; write it so, and export again"
        )
    return text[: match.start(3)] + replaced + text[match.end(3) :]


def _merged(known: Any, index: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:  # noqa: ANN401 - any YAML
    """The card's own index, with the new results instead of those on the same data."""
    (own,) = index
    models: list[dict[str, Any]] = known or []
    try:
        if models:
            model_index_to_eval_results(models)
    except Exception as error:  # whatever is not as the hub reads it
        raise ListconError(
            f"{path}: its {_KEY} is not as the hub reads it, a list of models with `results` of task, dataset and "
            f"metrics ({first_line_with_class(error)}): mend or remove it, and export again"
        ) from error
    same = next(
        (model for model in models if model.get("name") == own["name"]), models[0] if len(models) == 1 else None
    )
    if same is None:
        return [*models, own]
    replaced = {_identity(result) for result in own["results"]}
    kept = [result for result in same["results"] if _identity(result) not in replaced]
    merged = {**same, "results": [*own["results"], *kept]}
    return [merged if model is same else model for model in models]


def _identity(result: Mapping[str, Any]) -> tuple[object, ...]:
    data = result["dataset"]
    return (result["task"]["type"], data["type"], data.get("config"), data.get("split"))
