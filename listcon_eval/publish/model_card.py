"""The results of a model card: the `model-index` of its front matter, and its comparison table.

A card belongs to its author: only the `model-index` block and what stands between the table's markers are replaced,
everything else stays as it is, byte for byte.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult
from huggingface_hub.repocard_data import eval_results_to_model_index

from listcon_eval.data import OFFICIAL
from listcon_eval.errors import ListconError
from listcon_eval.files import write_text
from listcon_eval.publish.chosen import official_of, reasons_against
from listcon_eval.report import comparison
from listcon_eval.report.block import has_block, markdown_block, with_block
from listcon_eval.results import RunRecord

CARD_METRICS = ("map", "mrr_1", "mrr_10", "mrr_5")  # in the published card's order
_KEY = "model-index"
_FRONT_MATTER = re.compile(
    r"\A(\ufeff?---[ \t]*(\r\n|\n|\r))(.*?)(^---[ \t]*(?:\r\n|\n|\r|\Z))", re.DOTALL | re.MULTILINE
)


def model_index(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """The `model-index` of runs, in the card's metric names and percent, as `huggingface_hub` makes it.

    The revision is that of the data that was measured: mteb's copy of the data set that the card names.

    Raises:
        ListconError: a run is not official, or its numbers were changed; gives every reason.
    """
    reasons = [reason for record in records for reason in reasons_against(record)]
    if reasons:
        raise ListconError("no model card results:\n" + "\n".join(f"  - {reason}" for reason in reasons))
    results = []
    for record in records:
        task = official_of(record)
        if task is None:
            raise ListconError(f"{record.task} is no official task")
        results += [
            EvalResult(
                task_type="Reranking",
                dataset_type=task.card_dataset,
                dataset_name=task.card_name,
                dataset_config="default",
                dataset_split=task.split,
                dataset_revision=task.revision,
                metric_type=metric,
                metric_value=100 * record.cmteb[metric],
            )
            for metric in CARD_METRICS
        ]
    index: list[dict[str, Any]] = eval_results_to_model_index(records[0].model.rpartition("/")[2], results)
    return index


def front_matter_block(index: Sequence[Mapping[str, Any]], signatures: Sequence[str], line_break: str = "\n") -> str:
    r"""The `model-index` block as YAML, every number's signature in a comment: `model-index:\n# signature: ...`."""
    body = str(yaml.dump({_KEY: list(index)}, sort_keys=False, allow_unicode=True, line_break=line_break))
    key, _, rest = body.partition(line_break)
    return line_break.join([key, *(f"# signature: {signature}" for signature in signatures), rest])


def update_readme(path: Path, records: Sequence[RunRecord]) -> list[str]:
    """Put runs' results into a model card's README, and return in words what was changed.

    Results that the card has of other data stay; those of the same data are replaced. A README without front matter
    gets one. A table between `<!-- listcon-eval table -->` and `<!-- end -->` is made anew.

    Args:
        path: the README.
        records: the runs, one a task, of one model.

    Raises:
        ListconError: as `model_index`; or the README cannot be read, its front matter is no YAML, or a marker has
            no end.
    """
    index = model_index(records)
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:
        raise ListconError(f"{path} cannot be read as a model card: {error}") from error
    changed = [f"{_KEY}: {', '.join(record.task for record in records)}"]
    line_break = _line_break(text)
    text = _with_front_matter(text, index, [record.signature for record in records], line_break, path)
    if has_block(text):
        tables = comparison(records, with_published=True, official_order=[task.name for task in OFFICIAL])
        text = with_block(text, markdown_block(tables, records), path)
        changed.append("the comparison table")
    write_text(path, text)
    return changed


def _line_break(text: str) -> str:
    found = re.search(r"\r\n|\n|\r", text)
    return found[0] if found else "\n"


def _with_front_matter(
    text: str, index: list[dict[str, Any]], signatures: Sequence[str], line_break: str, path: Path
) -> str:
    match = _FRONT_MATTER.match(text)
    if match is None:
        return f"---{line_break}{front_matter_block(index, signatures, line_break)}---{line_break}{text}"
    header = match[3]
    known = _parsed(header, path)
    block = front_matter_block(_merged(known.get(_KEY), index), signatures, line_break)
    start, end = _block(header)
    replaced = header[:start] + block + header[end:]
    if not _is_changed_in_one_key(known, replaced):
        raise ListconError(
            f"{path}: its front matter is not written as one key a line, so {_KEY} cannot be put in without touching "
            "other keys; write it so, and export again"
        )
    return text[: match.start(3)] + replaced + text[match.end(3) :]


def _is_changed_in_one_key(known: Mapping[str, Any], replaced: str) -> bool:
    try:
        return {**known, _KEY: None} == {**yaml.safe_load(replaced), _KEY: None}
    except yaml.YAMLError:
        return False


def _parsed(header: str, path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(header)
    except yaml.YAMLError as error:
        raise ListconError(f"{path}: its front matter is no YAML: {error}") from error
    if content is not None and not isinstance(content, dict):
        raise ListconError(f"{path}: its front matter is a {type(content).__name__}; expected keys with values")
    return content or {}


def _block(header: str) -> tuple[int, int]:
    """Where the lines of `model-index` start and end in a front matter; at its end when it has none."""
    start = end = None
    place = 0
    for line in header.splitlines(keepends=True):
        if start is None:
            if re.match(rf"[\"']?{_KEY}[\"']?\s*:", line):
                start, end = place, place + len(line)
        elif line[:1] in (" ", "\t", "-"):
            end = place + len(line)
        elif line.strip() and not line.startswith("#"):
            break  # the next key; comments and empty lines just before it are its own
        place += len(line)
    return (len(header), len(header)) if start is None or end is None else (start, end)


def _merged(known: object, index: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The card's own index with the new results in the place of those of the same data."""
    (own,) = index
    models = [model for model in known if isinstance(model, dict)] if isinstance(known, list) else []
    same = next(
        (model for model in models if model.get("name") == own["name"]), models[0] if len(models) == 1 else None
    )
    if same is None:
        return [*models, own]
    replaced = {_identity(result) for result in own["results"]}
    kept = [result for result in same.get("results") or [] if _identity(result) not in replaced]
    merged = {**same, "results": [*own["results"], *kept]}
    return [merged if model is same else model for model in models]


def _identity(result: Mapping[str, Any]) -> tuple[object, ...]:
    data = result.get("dataset") or {}
    return (result.get("task", {}).get("type"), data.get("type"), data.get("config"), data.get("split"))
