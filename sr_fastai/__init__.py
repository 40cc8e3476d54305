"Super-resolution with GANs as a fastai package: `upscale` a picture, or train your own upscaler."
__version__ = "0.14.0"

TYPE_CHECKING = False # `typing`'s, which type checkers know by name, without the import
if TYPE_CHECKING: from sr_fastai.engine import upscale as upscale

def __getattr__(name):
    "`sr_fastai.upscale`, loaded on first use: `import sr_fastai` alone must cost next to nothing."
    if name != 'upscale': raise AttributeError(f"module 'sr_fastai' has no attribute {name!r}")
    from sr_fastai.engine import upscale
    return upscale

def __dir__(): return [*globals(), 'upscale']
