#!/usr/bin/env python3
"""The pictures of the model cards: where each model of the package is farthest from the original, in the sample's validation photographs, on clean LR and on LR saved as JPEG of quality 50."""
from pathlib import Path
from fastcore.script import call_parse
from sr_fastai.engine import upscale
from sr_fastai.files import atomic_path
from sr_fastai.quality import compare_row, measures, pairs, scores, stack_rows
from sr_fastai.resample import bicubic_up
from sr_fastai.weights import WEIGHTS, card_md, registry

sample = WEIGHTS.parent/'sample'/'DIV2K_valid_HR'

def worst_row(name, scale, jpeg):
    "LR, the model's result, bicubic's and the original, where the model is worst in the photograph that it loses most on."
    funcs,found = measures(('psnr','ssim'), scale),[]
    for _,lr,hr in pairs(sample, scale, jpeg=jpeg):
        results = {f'{name} x{scale}':upscale(lr, scale, name), 'bicubic':bicubic_up(lr, scale)}
        got = {k:scores(v, hr, funcs) for k,v in results.items()}
        captions = {k:f"{v['psnr']:.2f} dB, SSIM {v['ssim']:.4f}" for k,v in got.items()}
        # SSIM, for PSNR picks what is merely the most detailed
        found.append((got[f'{name} x{scale}']['ssim'], lr, results, hr, {'LR':f'JPEG {jpeg}' if jpeg else 'clean', **captions}))
    _,lr,results,hr,captions = min(found, key=lambda o: o[0])
    return compare_row(lr, results, hr, scale, captions, side=96)

@call_parse
def main(
    only:str='' # Of one name, such as gan; without it, of all
):
    "Make the pictures of the model cards and put them in."
    for o in registry():
        if only not in ('',o['name']): continue
        rows = [worst_row(o['name'], o['scale'], jpeg) for jpeg in (None,50)]
        file = WEIGHTS/o['file']
        with atomic_path(file.with_suffix('.webp')) as tmp: stack_rows(rows).save(tmp, 'webp', quality=85, method=6)
        with atomic_path(file.with_suffix('.md')) as tmp: tmp.write_text(card_md(file), encoding='utf-8')
        print(file.with_suffix('.webp').name, flush=True)
