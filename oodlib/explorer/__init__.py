"""The label-mixup explorer: sliders for class weights, and what the denoiser draws for them."""
