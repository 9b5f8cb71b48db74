"""Numbers and scores on disk."""

from listcon_eval.runs.layout import RunRecord, find_runs, read_run, results_folder
from listcon_eval.runs.provenance import TIE_RULES, device_name, git_state, package_versions, signature
from listcon_eval.runs.writer import run_folder, write_mteb_result, write_run

__all__ = [
    "TIE_RULES",
    "RunRecord",
    "device_name",
    "find_runs",
    "git_state",
    "package_versions",
    "read_run",
    "results_folder",
    "run_folder",
    "signature",
    "write_mteb_result",
    "write_run",
]
