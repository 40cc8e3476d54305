#!/usr/bin/env python
"""How close a model comes to originals, beside bicubic: PSNR and SSIM by the field's protocol (8 bits, Y of BT.601, a border of `scale` pixels off; grey pictures on their own values).

    python benchmarks/bench_quality.py Set5/HR Set14/HR
    python benchmarks/bench_quality.py photos --model mine.safetensors

LR is made from HR by MATLAB's bicubic, as in every paper; the model runs as `upscale()` runs it."""
import json
from pathlib import Path
import numpy as np, torch
from PIL import Image
from fastcore.script import Param, call_parse
from sr_fastai import upscale
from sr_fastai.metrics import psnr, ssim
from sr_fastai.resample import bicubic_down, bicubic_up

def tensor(a):
    "HWC or HW uint8 to (1, C, H, W) in 0..1."
    return torch.from_numpy(np.atleast_3d(a).copy()).permute(2,0,1)[None]/255

def scores(pred, hr, scale):
    return [f(tensor(pred), tensor(hr), border=scale).item() for f in (psnr,ssim)]

@call_parse
def main(
    folders:Param("Folders of HR pictures", Path, nargs='+'),
    scale:int=2, # Upscaling factor
    model:str='auto', # A shipped model's name or a file
    precision:str='auto', # As in `upscale`
    per_image:bool=False, # A row for each picture as well
    json_out:Path=None # Also write the means to this file, for a model card
):
    "PSNR and SSIM of bicubic and of a model on folders of originals."
    figures = {}
    print(f"{'':28}{'bicubic':>17}{model[-16:]:>17}")
    for folder in folders:
        rows = []
        for f in sorted(o for o in folder.iterdir() if o.suffix.lower() in ('.png','.bmp','.webp','.tif','.tiff')):
            with Image.open(f) as im: hr = np.asarray(im if im.mode=='L' else im.convert('RGB'))
            hr = hr[:hr.shape[0]//scale*scale, :hr.shape[1]//scale*scale]
            lr = bicubic_down(hr, scale)
            rows.append([*scores(bicubic_up(lr, scale), hr, scale), *scores(upscale(lr, scale=scale, model=model, precision=precision), hr, scale)])
            if per_image: print(f'  {f.stem[:25]:26}' + '{:9.2f}  {:.4f}{:9.2f}  {:.4f}'.format(*rows[-1]))
        if not rows: raise SystemExit(f'bench_quality: {folder} has no PNG, BMP, WebP or TIFF pictures')
        name,mean = f'{folder.parent.name}/{folder.name}',np.mean(rows, 0)
        print(f'{name:24}{len(rows):4}' + '{:9.2f}  {:.4f}{:9.2f}  {:.4f}'.format(*mean))
        figures[f'{name}, {len(rows)} pictures, x{scale}'] = '{2:.2f} dB, SSIM {3:.4f} (bicubic {0:.2f} dB, {1:.4f})'.format(*mean)
    if json_out: json_out.write_text(json.dumps(figures, indent=1)+'\n')
