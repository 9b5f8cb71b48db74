"""From scores to numbers, in the two protocols that the four tasks are reported in."""

from listcon_eval.measures.measure import CMTEB_MEASURES, MTEB_MEASURES, Measure, Protocol

__all__ = ["CMTEB_MEASURES", "MTEB_MEASURES", "Measure", "Protocol"]
