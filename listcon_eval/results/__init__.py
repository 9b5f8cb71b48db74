"""Numbers and scores on disk."""

from listcon_eval.results.layout import RunRecord, find_runs, read_run, results_folder
from listcon_eval.results.manifest import is_finished
from listcon_eval.results.provenance import TIE_RULES, device_name, git_state, package_versions, signature
from listcon_eval.results.reading import RankedQuery, read_per_query, read_provenance, read_rankings, runs_at
from listcon_eval.results.work import Work, at_work, run_key
from listcon_eval.results.writer import clear_leftovers, run_folder, write_failures, write_mteb_result, write_run

__all__ = [
    "TIE_RULES",
    "RankedQuery",
    "RunRecord",
    "Work",
    "at_work",
    "clear_leftovers",
    "device_name",
    "find_runs",
    "git_state",
    "is_finished",
    "package_versions",
    "read_per_query",
    "read_provenance",
    "read_rankings",
    "read_run",
    "results_folder",
    "run_folder",
    "run_key",
    "runs_at",
    "signature",
    "write_failures",
    "write_mteb_result",
    "write_run",
]
