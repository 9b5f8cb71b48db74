"""The mini benchmark: four small reranking tasks of original Chinese text, packaged as data."""
