"""The figures that others published, and which of them a run reproduces."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from listcon_eval.metrics import Measure
from listcon_eval.results import RunRecord

MAP = Measure("cmteb", "map")
_FILE = "published.json"
_LOCAL = "local"


class Key(NamedTuple):
    """What names a published row: the model as the card writes it, and the inference mode, `-` for none."""

    model: str
    mode: str


@dataclass(frozen=True)
class PublishedRow:
    """One row of the model card's table.

    Attributes:
        hub: the model's id on the hub.
        values: task -> percent, two decimals.
        average: the published average, percent.
    """

    hub: str
    values: Mapping[str, float]
    average: float


@cache
def published_rows() -> dict[Key, PublishedRow]:
    """The rows of the model card's table, in its order."""
    published = json.loads(files("listcon_eval.report").joinpath(_FILE).read_text(encoding="utf-8"))
    return {
        Key(row["model"], row["mode"] or "-"): PublishedRow(
            row["hub"], dict(zip(published["tasks"], row["values"], strict=True)), row["average"]
        )
        for row in published["rows"]
    }


def published_key(run: RunRecord) -> Key | None:
    """The published row of a run's own model and mode, or None.

    A model of the hub is known by its id. A local folder has no id and is known by its name, the model's own; a
    folder of another organisation's repository is another model.
    """
    for key, row in published_rows().items():
        organisation, _, name = run.model.rpartition("/")
        is_same = run.model == row.hub or (
            organisation in ("", _LOCAL) and _plain(name) in (_plain(row.hub.rpartition("/")[2]), _plain(key.model))
        )
        if is_same and key.mode == run.shown_mode:
            return key
    return None


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
