"""The regression gate: are today's numbers still those of the baseline?"""

from listcon_eval.regression.baseline import Baseline, baseline_of, read_baseline, write_baseline
from listcon_eval.regression.check import Tolerances, Verdict, check

__all__ = ["Baseline", "Tolerances", "Verdict", "baseline_of", "check", "read_baseline", "write_baseline"]
