"""The ranker in other people's protocols."""
