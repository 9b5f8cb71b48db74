"""Training: Circle Loss over lists, in two stages, after a contrastive warm-up where the encoder is new."""

from typing import TYPE_CHECKING, Any

from listcon_eval.train.settings import Settings

if TYPE_CHECKING:
    from listcon_eval.train.run import Outcome, train

__all__ = ["Outcome", "Settings", "train"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the signature of a module's __getattr__
    """Import the trainer, and with it torch, only when it is asked for: settings are the command line's too."""
    if name in ("Outcome", "train"):
        from listcon_eval.train import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
