"""Tables of runs, and the report: one page with figures and every query."""

from listcon_eval.report.table import Table, comparison

__all__ = ["Table", "comparison"]
