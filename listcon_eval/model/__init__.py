"""The torch core: the architecture, written once, and its checkpoints."""

from listcon_eval.model.architecture import ListConConfig, ListConModel
from listcon_eval.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, save_quantised
from listcon_eval.model.sources import MINI, PUBLISHED_ID, PUBLISHED_REVISION

__all__ = [
    "MINI",
    "PUBLISHED_ID",
    "PUBLISHED_REVISION",
    "Checkpoint",
    "ListConConfig",
    "ListConModel",
    "load_checkpoint",
    "save_checkpoint",
    "save_quantised",
]
