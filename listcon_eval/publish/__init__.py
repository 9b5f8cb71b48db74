"""Files to publish: what mteb's results repository takes, and a model card's results. Official runs only."""

from listcon_eval.publish.chosen import chosen_runs
from listcon_eval.publish.leaderboard import Exported, export_leaderboard
from listcon_eval.publish.model_card import model_index, update_readme

__all__ = ["Exported", "chosen_runs", "export_leaderboard", "model_index", "update_readme"]
