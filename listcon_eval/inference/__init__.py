"""Texts to features to scores: both inference modes over many lists at once."""

from listcon_eval.inference.ranker import EncodedLists, ListConRanker

__all__ = ["EncodedLists", "ListConRanker"]
