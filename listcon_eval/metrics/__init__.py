"""From scores to numbers, in the two protocols that the four tasks are reported in."""

from listcon_eval.metrics.measure import CMTEB_MEASURES, MTEB_MEASURES, Measure, Protocol

__all__ = ["CMTEB_MEASURES", "MTEB_MEASURES", "Measure", "Protocol"]
