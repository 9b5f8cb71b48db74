"""The saved state of a training run: enough to go on after a kill as if nothing had happened."""

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import torch
from torch import Tensor

from listcon_eval.errors import ListconError

STATE_FILE = "state.pt"


@dataclass(frozen=True)
class State:
    """Where a run is. No random generator is saved: every random choice follows from seed, stage and step.

    Attributes:
        run: what decides the run's result (settings, data); a continuation must have the same.
        stage: the stage that is trained.
        step: steps of that stage that are done.
        done: whether the whole run is.
        best_map: the best MAP of a stage with list scores so far.
        log_bytes: the size of the log at this point; later lines are of steps that will be done again.
        model: the weights by name; empty once the run is done.
        optimiser: the optimiser's state; empty at a stage's start.
        scaler: the gradient scaler's state; empty without one.
    """

    run: dict[str, Any]
    stage: int
    step: int
    done: bool
    best_map: float | None
    log_bytes: int
    model: dict[str, Tensor]
    optimiser: dict[str, Any]
    scaler: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Write the state whole or not at all."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        with NamedTemporaryFile(dir=folder, prefix=f".{STATE_FILE}.", delete=False) as file:
            temporary = Path(file.name)
            try:
                torch.save(values, file)
                file.flush()
                os.fsync(file.fileno())
                file.close()
                temporary.chmod(0o644)  # a temporary file starts as 0600
                temporary.replace(folder / STATE_FILE)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise


def load_state(folder: Path, run: dict[str, Any]) -> State | None:
    """The state saved in `folder`, or None.

    Args:
        folder: the run's output folder.
        run: what decides the result of the run that wants to go on.

    Raises:
        ListconError: when it cannot be read, or is the state of another run: all differences are listed.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        state = State(**torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, pickle.UnpicklingError, RuntimeError, EOFError, TypeError, ValueError) as error:
        raise ListconError(
            f"cannot read the saved state {path}: {str(error).splitlines()[0]}; remove it to start again"
        ) from error
    different = [name for name in {**state.run, **run} if state.run.get(name) != run.get(name)]
    if different:
        lines = [f"\n  {name}: {state.run.get(name)!r} there, {run.get(name)!r} here" for name in different]
        raise ListconError(
            f"{path} is the state of another run, which cannot be gone on with:{''.join(lines)}\n"
            f"Give the same options and data, or another --output"
        )
    return state
