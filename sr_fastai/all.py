"For notebooks: all of fastai's vision and of sr_fastai. Import it last: fastai's own star import brings `typing.Generator`, which ours replaces."
from fastai.vision.all import *
from sr_fastai import degrade
from sr_fastai.checkpoint import Checkpoint, CheckpointError, read_checkpoint
from sr_fastai.data import *
from sr_fastai.ema import *
from sr_fastai.engine import upscale
from sr_fastai.learner import *
from sr_fastai.losses import *
from sr_fastai.lpips import LPIPS
from sr_fastai.metrics import *
from sr_fastai.models import *
from sr_fastai.onnx_model import export_onnx
from sr_fastai.ops import pixel_shuffle_sigmoid
from sr_fastai.optim import *
from sr_fastai.recorder import *
from sr_fastai.resample import *
from sr_fastai.show import *
from sr_fastai.steps import *
from sr_fastai.tracking import Track
from sr_fastai.weights import *
from sr_fastai.whole import whole_image_metrics
