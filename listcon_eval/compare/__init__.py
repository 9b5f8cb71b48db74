"""Runs side by side: means with intervals, paired tests, and the queries that moved."""

from listcon_eval.compare.compare import Comparison, compare
from listcon_eval.compare.contestants import Contestant, TaskRun, contestants

__all__ = ["Comparison", "Contestant", "TaskRun", "compare", "contestants"]
