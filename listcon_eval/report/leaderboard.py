"""What mteb's results repository already shows."""

import json
from importlib.resources import files
from typing import NamedTuple

_FILE = "leaderboard.json"


class Shown(NamedTuple):
    """A result that the leaderboard shows.

    Attributes:
        revision: the model's revision.
        mode: the inference mode it was made with.
        main_score: map_at_1000, 0 to 1.
    """

    revision: str
    mode: str
    main_score: float


def shown_on_leaderboard(model: str, task: str) -> Shown | None:
    """The published result of a model on a task, or None."""
    models = json.loads(files("listcon_eval.report").joinpath(_FILE).read_text(encoding="utf-8"))["models"]
    row = models.get(model)
    if row is None or task not in row["tasks"]:
        return None
    return Shown(row["revision"], row["mode"], round(row["tasks"][task]["map_at_1000"] / 100, 7))
