"""From scores to numbers, in the two protocols that every run is reported in."""

from listcon_eval.metrics.measure import CARD_MAP, CMTEB_MEASURES, MAIN, MAIN_SCORE, MTEB_MEASURES, Measure

__all__ = ["CARD_MAP", "CMTEB_MEASURES", "MAIN", "MAIN_SCORE", "MTEB_MEASURES", "Measure"]
