"""The tasks of mteb by name: the four of the model card, every other one that brings candidate lists, and sets of them.

Everything that is known of a task (split, subsets, main score, sizes, revision) comes from mteb's metadata.
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from listcon_eval import mteb_compat
from listcon_eval.data.tasks import Task, mini_names, mini_task
from listcon_eval.errors import ListconError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

_ALL_CARD_TASKS = "official"
_RERANKING_TYPES = ("Reranking", "InstructionReranking")
_RETRIEVAL_TYPES = ("Retrieval", "InstructionRetrieval")
_CHINESE = {"chinese", "zho", "cmn"}  # one language under ISO's code for all of Chinese and that for Mandarin
_SET = re.compile(r"all-(.+)-reranking", re.IGNORECASE)
_SELECTED = re.compile(r"([^\[\]]*)((?:\[[^\[\]]*\]){0,2})")
_SEPARATED = re.compile(r"(?:\([^()]*\)|\[[^\[\]]*\]|[^,])+")  # a comma in brackets separates no names


class CardTask(NamedTuple):
    """One of the four tasks of the model card."""

    name: str  # mteb's
    column: str  # in the card's table
    card_name: str  # the data set's name in a model card's results
    card_dataset: str  # the data set's type in a model card's results

    @property
    def aliases(self) -> list[str]:
        """Every accepted name other than `name`; case does not matter."""
        short = self.card_name.removeprefix("MTEB "), self.card_dataset.removeprefix("C-MTEB/")
        aliases = dict.fromkeys((self.column, *short, self.card_name, self.card_dataset))
        return [alias for alias in aliases if alias != self.name]


CARD_TASKS: tuple[CardTask, ...] = (
    CardTask("CMedQAv1-reranking", "cMedQA1.0", "MTEB CMedQAv1", "C-MTEB/CMedQAv1-reranking"),
    CardTask("CMedQAv2-reranking", "cMedQA2.0", "MTEB CMedQAv2", "C-MTEB/CMedQAv2-reranking"),
    CardTask("MMarcoReranking", "MMarcoReranking", "MTEB MMarcoReranking", "C-MTEB/Mmarco-reranking"),
    CardTask("T2Reranking", "T2Reranking", "MTEB T2Reranking", "C-MTEB/T2Reranking"),
)


def card_task(name: str) -> CardTask | None:
    """The task of the model card of this name or alias, or None; case does not matter."""
    wanted = name.strip().casefold()
    return next((task for task in CARD_TASKS if wanted in map(str.casefold, (task.name, *task.aliases))), None)


def mteb_name(name: str) -> str | None:
    """The name of the task of mteb that a name stands for, whatever follows in brackets; None when there is none."""
    base = name.partition("[")[0].strip()
    card = card_task(base)
    return card.name if card else mteb_compat.task_names().get(base.casefold())


def leaves_out_own_documents(name: str) -> bool:
    """Whether the task of mteb of this name leaves out documents with the id of their query, as ArguAna does."""
    found = mteb_name(name)
    return found is not None and _mteb_task(found).ignore_identical_ids


def official_tasks(name: str, *, for_first_stage: bool = False) -> list[Task]:
    """The subsets and splits that a task's name stands for, with their data still to be loaded.

    Args:
        name: a name of mteb or of the model card, in any case. Subsets or splits follow in brackets, separated by
            commas, or subsets and then splits in two pairs: `MIRACLReranking[zh]`, `XGlueWPRReranking[zh,fr][test]`.
        for_first_stage: whether the candidates will come from a first stage, and the data need not have them.

    Raises:
        ListconError: there is no such task, subset or split, or it is no task that texts can be reranked for.
    """
    matched = _SELECTED.fullmatch(name.strip())
    found = None if matched is None else mteb_name(matched[1])
    if matched is None or found is None:
        raise _unknown(name)
    mteb_task = _mteb_task(found)
    metadata = mteb_task.metadata
    check_texts(metadata)
    if mteb_task.is_aggregate:
        raise ListconError(f"{found} is a group of tasks of mteb: name the tasks in it")
    chosen = [{word.strip() for word in words.split(",")} for words in re.findall(r"\[([^\[\]]*)\]", matched[2])]
    subsets, splits = metadata.hf_subsets, list(metadata.eval_splits)
    wanted = [chosen[0], chosen[1]] if len(chosen) == 2 else [{*subsets}, {*splits}]
    if len(chosen) == 1:
        wanted[1 if chosen[0] <= {*splits} and not chosen[0] <= {*subsets} else 0] = chosen[0]
    if not (wanted[0] <= {*subsets} and wanted[1] <= {*splits}):
        raise ListconError(
            f"{name!r}: {found} has the subsets {', '.join(subsets)} and the splits {', '.join(splits)}; give some of "
            f"them as {found}[{subsets[0]}], {found}[{splits[0]}] or {found}[{subsets[0]}][{splits[0]}]"
        )
    tasks = [
        part_of(_mteb_task(found), subset, split)
        for subset in subsets
        for split in splits
        if subset in wanted[0] and split in wanted[1]
    ]
    if not for_first_stage and not all(task.statistics().get("top_ranked_statistics") for task in tasks):
        raise ListconError(
            f"{found} is a {metadata.type} task without candidate lists: give a first stage whose results are "
            "reranked, --rerank bm25 or --rerank PREDICTIONS"
        )
    return tasks


def official_task(name: str) -> Task:
    """The one subset and split that a name stands for; ListconError as `official_tasks`, or it stands for several."""
    tasks = official_tasks(name, for_first_stage=True)
    if len(tasks) > 1:
        raise ListconError(
            f"{name} stands for {len(tasks)} subsets and splits ({', '.join(task.name for task in tasks)}): name one"
        )
    return tasks[0]


def part_of(mteb_task: AbsTaskRetrieval, subset: str, split: str) -> Task:
    """One subset and split of a task of mteb, on its official data, named after what there are several of."""
    metadata = mteb_task.metadata
    parts = [subset] if len(metadata.hf_subsets) > 1 else []
    parts += [split] if len(metadata.eval_splits) > 1 else []
    return Task(
        name=metadata.name + "".join(f"[{part}]" for part in parts),
        split=split,
        revision=metadata.revision,
        source="hub",
        location=metadata.dataset["path"],
        is_official=True,
        mteb_task=mteb_task,
        subset=subset,
    )


def check_texts(metadata: TaskMetadata) -> None:
    """Refuse a task that is none of ranking texts; names what it needs instead."""
    if reason := _not_of_texts(metadata):
        raise ListconError(f"{metadata.name} {reason}")


def _not_of_texts(metadata: TaskMetadata) -> str | None:
    if others := [modality for modality in metadata.modalities if modality != "text"]:
        return f"needs {' and '.join(others)}, and this package ranks texts alone"
    if metadata.type not in (*_RERANKING_TYPES, *_RETRIEVAL_TYPES):
        return f"is a {metadata.type} task of mteb: it has no queries and documents to rank"
    return None


def list_tasks(
    language: str | None = None, types: Sequence[str] = (*_RERANKING_TYPES, *_RETRIEVAL_TYPES)
) -> list[Task]:
    """The tasks of mteb that bring candidate lists of texts, the model card's first. Needs no data and no hub.

    Args:
        language: only those with this language, as `zho`, `deu` or an English name.
        types: mteb's types of the tasks.

    Raises:
        ListconError: no task has the language.
    """
    import mteb
    from mteb.languages import ISO_TO_LANGUAGE

    order = {task.name: place for place, task in enumerate(CARD_TASKS)}
    known = mteb.get_tasks(task_types=cast("Any", list(types)), modalities=["text"])
    tasks = _ranking_parts(
        sorted(known, key=lambda task: (order.get(task.metadata.name, len(order)), task.metadata.name))
    )
    if language is None:
        return tasks
    names = {code: {code, name.casefold()} for code, name in cast("Mapping[str, str]", ISO_TO_LANGUAGE).items()}
    wanted = language.casefold()

    def has_language(task: Task) -> bool:
        codes = {code.partition("-")[0] for code in task.languages}
        return any(wanted in names.get(code, {code}) or (wanted in _CHINESE and code in _CHINESE) for code in codes)

    found = [task for task in tasks if has_language(task)]
    if not found:
        seen = sorted({code.partition("-")[0] for task in tasks for code in task.languages})
        raise ListconError(f"no reranking task has the language {language!r}: give one of {', '.join(seen)}")
    return found


def split_names(names: str) -> list[str]:
    """The names in a text that separates them by commas; at least one, or a ListconError."""
    found = [name.strip() for name in _SEPARATED.findall(names) if name.strip()]
    if not found:
        raise ListconError(f"{names!r} names no task: give names separated by commas, or official, or mini")
    return found


def tasks_named(names: str, *, for_first_stage: bool = False) -> list[Task]:
    """The tasks of names separated by commas, each once.

    A name is that of a task (`official_tasks`), of a packaged one or `mini` for all of these, `official` for the four
    of the model card, `all-LANGUAGE-reranking`, or the name of a benchmark of mteb, for its reranking tasks.

    Raises:
        ListconError: there is no task of a name, or no name.
    """
    tasks: list[Task] = []
    for name in split_names(names):
        language = _SET.fullmatch(name)
        if name.casefold() == _ALL_CARD_TASKS:
            tasks += [task for card in CARD_TASKS for task in official_tasks(card.name)]
        elif language is not None:
            tasks += list_tasks(language[1], _RERANKING_TYPES)
        elif mini := mini_names(name):
            tasks += [mini_task(task) for task in mini]
        elif mteb_name(name) is None and (benchmark := _benchmark(name)) is not None:
            tasks += benchmark
        else:
            tasks += official_tasks(name, for_first_stage=for_first_stage)
    return list({task.name: task for task in tasks}.values())


def _mteb_task(name: str) -> AbsTaskRetrieval:
    """A fresh task of mteb, without data."""
    import mteb

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on tasks that were superseded
        return cast("AbsTaskRetrieval", mteb.get_task(name))


def _ranking_parts(mteb_tasks: Iterable[Any]) -> list[Task]:
    """The subsets and splits of tasks of mteb that are ranking tasks of texts and bring candidate lists."""
    tasks = []
    for task in mteb_tasks:
        if task.is_aggregate or _not_of_texts(task.metadata):
            continue
        for subset in task.hf_subsets:
            for split in task.eval_splits:
                part = part_of(_mteb_task(task.metadata.name), subset, split)
                if part.statistics().get("top_ranked_statistics"):
                    tasks.append(part)
    return tasks


def _benchmark(name: str) -> list[Task] | None:
    """The reranking tasks of a benchmark of mteb, its subsets and splits of them; None when there is no such one."""
    import mteb

    try:
        benchmark = mteb.get_benchmark(name)
    except KeyError:
        return None
    tasks = _ranking_parts(task for task in benchmark.tasks if task.metadata.type in _RERANKING_TYPES)
    if not tasks:
        raise ListconError(f"{name} has no reranking task of texts: give another benchmark, or tasks by name")
    return tasks


def _unknown(name: str) -> ListconError:
    names = (*mteb_compat.task_names().values(), *(alias for task in CARD_TASKS for alias in task.aliases))
    hint = did_you_mean(name.partition("[")[0], names)
    tasks = "; ".join(f"{task.name} ({', '.join(task.aliases)})" for task in CARD_TASKS)
    return ListconError(
        f"unknown task {name!r}{hint}: known are {tasks}; the other reranking tasks of mteb, which `listcon-eval "
        "tasks` lists; mini for the mini benchmark. Give your own data by --data PATH."
    )
