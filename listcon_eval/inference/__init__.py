"""Texts to features to scores: both inference modes over many lists at once."""
