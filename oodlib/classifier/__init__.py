"""A classifier of one's own: a trained network becomes a detector that is fitted and evaluated on one's own images."""
