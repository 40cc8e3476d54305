#!/usr/bin/env python3
"""The pictures of the model cards: where each model of the package is farthest from the original, in the sample's validation photographs, on clean LR and on LR saved as JPEG of quality 50."""
from pathlib import Path
from fastcore.script import call_parse
from sr_fastai.files import atomic_path
from sr_fastai.quality import compare_row, quality, stack_rows
from sr_fastai.weights import WEIGHTS, card_md, registry

sample = WEIGHTS.parent/'sample'/'DIV2K_valid_HR'

def worst_row(name, scale, jpeg):
    "LR, the model's result, bicubic's and the original, where the model is worst in the photograph that it loses most on."
    seen = []
    quality([sample], [name], scale, jpeg=jpeg, names=('psnr','ssim'), seen=lambda *o: seen.append(o))
    # by SSIM, for PSNR picks what is merely the most detailed
    _,lr,results,hr,got = min(seen, key=lambda o: o[-1][name]['ssim'])
    called = {f'{name} x{scale}':name, 'bicubic':'bicubic'} # the model first: its worst place is shown
    captions = {k:f"{got[m]['psnr']:.2f} dB, SSIM {got[m]['ssim']:.4f}" for k,m in called.items()}
    return compare_row(lr, {k:results[m] for k,m in called.items()}, hr, scale, {'LR':f'JPEG {jpeg}' if jpeg else 'clean', **captions}, side=96)

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
