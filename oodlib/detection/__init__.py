"""Detectors: heads, backbones, scores, training, metrics."""
