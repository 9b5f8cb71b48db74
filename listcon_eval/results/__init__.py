"""Results on disk: typed records, folders that are written whole, and what an unfinished run keeps."""

from listcon_eval.results.records import Provenance, QueryRow, RankedQuery, Result, Signature
from listcon_eval.results.store import (
    Results,
    load_results,
    read_per_query,
    read_provenance,
    read_rankings,
    results_folder,
)

__all__ = [
    "Provenance",
    "QueryRow",
    "RankedQuery",
    "Result",
    "Results",
    "Signature",
    "load_results",
    "read_per_query",
    "read_provenance",
    "read_rankings",
    "results_folder",
]
