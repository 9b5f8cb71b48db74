"""Texts to features to scores: both inference modes over many lists at once."""

from listcon_eval.inference.journal import Journal
from listcon_eval.inference.ranker import EncodedLists, ListConRanker
from listcon_eval.inference.texts import check_list

__all__ = ["EncodedLists", "Journal", "ListConRanker", "check_list"]
