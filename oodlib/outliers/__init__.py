"""Outliers to train on: their sources, the committee that judges them, and the pool."""
