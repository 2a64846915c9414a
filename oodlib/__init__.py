"""Out-of-distribution detection with synthetic outliers drawn by a diffusion model from mixed labels.

The method is that of Wahd, "Deep Metric Learning-Based Out-of-Distribution Detection with Synthetic
Outlier Exposure", arXiv 2405.00631. The data's way through the package, and the order of its imports:
`data` -> `denoiser` -> `mixup` -> `heads`, `detector` -> `training` -> `scores` -> `metrics` -> `plots`.
"""
