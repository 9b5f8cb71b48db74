"""The regression gate: are today's numbers still those of the baseline?"""

from listcon_eval.regression.baseline import Baseline, baseline_of, read_baseline, write_baseline
from listcon_eval.regression.check import Verdict, check, parse_tolerances

__all__ = ["Baseline", "Verdict", "baseline_of", "check", "parse_tolerances", "read_baseline", "write_baseline"]
