#!/usr/bin/env python
"""The README's picture: a detail of the photograph that comes along, as LR, bicubic, the shipped weights' result, and original."""
from pathlib import Path
import matplotlib.pyplot as plt, numpy as np, torch
from PIL import Image
from fastcore.script import call_parse
from sr_fastai import upscale
from sr_fastai.metrics import psnr
from sr_fastai.resample import bicubic_up

root = Path(__file__).parent.parent
assets = root/'sr_fastai'/'assets'

def db(a, b):
    "PSNR of Y without a border of 2 pixels, two HWC uint8 arrays."
    return psnr(*(torch.from_numpy(o.copy()).permute(2,0,1)[None]/255 for o in (a,b)), border=2).item()

@call_parse
def main(
    model:str='auto', # A shipped model's name or a file
    out:Path=root/'nbs'/'images'/'otter.png' # Where to
):
    "Make the README's picture."
    lr,hr = (np.asarray(Image.open(assets/f).convert('RGB')) for f in ('otters.png','otters_original.webp'))
    up,sr = bicubic_up(lr, 2),upscale(lr, model=model)
    t,l,n = 138,138,120 # the detail in HR pixels
    panels = [('low resolution',lr[t//2:(t+n)//2, l//2:(l+n)//2])] + [(name,o[t:t+n, l:l+n]) for name,o in
        ((f'bicubic {db(up, hr):.2f} dB',up), (f'sr_fastai {db(sr, hr):.2f} dB',sr), ('original',hr))]
    fig,axs = plt.subplots(1, 4, figsize=(12,3.5), dpi=80)
    for ax,(name,o) in zip(axs, panels):
        ax.imshow(o, interpolation='nearest')
        ax.set_title(name)
        ax.axis('off')
    fig.tight_layout(pad=.6)
    fig.savefig(out)
    print(out, *(name for name,_ in panels[1:3]))
