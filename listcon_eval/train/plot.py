"""Loss and MAP of a training run as a picture. matplotlib, an optional extra, draws it."""

from importlib.util import find_spec
from pathlib import Path

from listcon_eval.train.log import read_log

PLOT_FILE = "curves.png"
HOW_TO_PLOT = "no plot: matplotlib is not installed; `pip install 'listcon-eval[train]'` brings it"


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw(log: Path, path: Path) -> None:
    """Draw the losses of all steps and the MAP of all evaluations in a log, one above the other, as PNG.

    Args:
        log: the log of a run with at least one step.
        path: the picture to write.
    """
    from matplotlib.figure import Figure

    lines = read_log(log)
    steps = [line for line in lines if line["event"] == "step"]
    evaluations = [line for line in lines if line["event"] == "evaluation"]
    figure = Figure(figsize=(8, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for stage in sorted({line["stage"] for line in steps}):
        mine = [line for line in steps if line["stage"] == stage]
        above.plot([line["step"] for line in mine], [line["loss"] for line in mine], label=f"stage {stage}")
    above.set_ylabel("loss")
    above.legend()
    for name in sorted({name for line in evaluations for name in line["map"]}):
        below.plot(
            [line["step"] for line in evaluations],
            [line["map"][name] for line in evaluations],
            marker="o",
            label=name,
        )
    below.set_ylabel("MAP (cmteb)")
    below.set_xlabel("step")
    if evaluations:
        below.legend()
    figure.savefig(path, dpi=120)
