"""Runs side by side: means with intervals, paired tests, and the queries whose values changed."""

from listcon_eval.comparison.pairwise import compare
from listcon_eval.comparison.render import Comparison
from listcon_eval.comparison.systems import ComparedSystem, TaskRun, find_system, read_systems

__all__ = ["ComparedSystem", "Comparison", "TaskRun", "compare", "find_system", "read_systems"]
