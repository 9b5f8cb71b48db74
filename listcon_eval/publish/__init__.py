"""Files to publish: what mteb's results repository takes, and a model card's results. Official runs only."""
