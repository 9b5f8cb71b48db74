"""Tables of runs."""

from listcon_eval.reports.table import Table, comparison

__all__ = ["Table", "comparison"]
