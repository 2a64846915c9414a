"""The label-mixup explorer: sliders for class weights, and what the denoiser draws for them."""


def __getattr__(name: str):
    if name != "Explorer":
        raise AttributeError(f"module 'oodlib.explorer' has no attribute {name!r}")
    from oodlib.explorer.widget import Explorer  # here, so that what is drawn needs no widgets

    return Explorer
