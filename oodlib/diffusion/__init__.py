"""The diffusion model: label weights, denoiser, training, sampler, and what it says of images by itself."""
