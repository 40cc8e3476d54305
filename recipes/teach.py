#!/usr/bin/env python
"""Write photographs as DIV2K lays them out, in which HR is what trained generators make of LR: the mean of their answers to its eight flips and turns, each corrected until, downscaled, it is LR again.

That mean is better than any of the answers, and has none of the detail that no generator can know: what is learnt from it is learnt with less noise.

    python recipes/teach.py base,runs/lite_x4/weights.safetensors 4 PHOTOS VALID runs/taught_x4
    sr_train recipes/base_x4_taught.yaml
"""
import json
from pathlib import Path
import numpy as np
from PIL import Image
from fastcore.script import call_parse
from tqdm import tqdm
from sr_fastai import upscale
from sr_fastai.div2k import div2k_folders
from sr_fastai.files import atomic_path
from sr_fastai.imageio import find_pictures, read_uint8
from sr_fastai.resample import bicubic_down
from sr_fastai.weights import load_weights

def taught(lr, nets):
    "The mean of what `nets` make of `lr` and of its flips and turns; LR again, downscaled."
    answers = [upscale(lr/np.float32(255), net.scale, net, ensemble=True, consistent=True) for net in nets]
    return np.rint(255*np.mean(answers, axis=0)).astype(np.uint8)

def save(a, path):
    with atomic_path(path) as tmp: Image.fromarray(a).save(tmp, 'PNG')

@call_parse
def main(
    weights:str, # Names of shipped weights, or files, with commas between them
    scale:int, # Theirs
    photos:Path, # Folder of HR pictures to learn from, searched with its subfolders
    valid:Path, # Folder of HR pictures to validate with, which stay as they are
    out:Path # The folder to write; pictures that it has already are kept
):
    "Write LR and taught HR for training, LR and HR for validation."
    nets = [load_weights(w, scale) for w in weights.split(',')]
    found = {split:find_pictures(folder, recursive=True) for split,folder in dict(train=photos, valid=valid).items()}
    made_of = dict(weights=weights, **{split:[o.name for o in files] for split,files in found.items()})
    out.mkdir(parents=True, exist_ok=True)
    if (begun := out/'made_of.json').exists() and json.loads(begun.read_text())!=made_of: raise SystemExit(f"{out} was begun with other weights or photographs; write to another folder")
    with atomic_path(begun) as tmp: tmp.write_text(json.dumps(made_of))
    for split,files in found.items():
        hr_dir,lr_dir = (out/o for o in div2k_folders(scale, split=split))
        for d in (hr_dir,lr_dir): d.mkdir(parents=True, exist_ok=True)
        for i,f in enumerate(tqdm(files, split), 1):
            if (to := hr_dir/f'{i:04}.png').exists(): continue
            hr = read_uint8(f)
            hr = hr[:hr.shape[0]//scale*scale, :hr.shape[1]//scale*scale]
            lr = bicubic_down(hr, scale)
            save(lr, lr_dir/f'{i:04}x{scale}.png')
            save(taught(lr, nets) if split=='train' else hr, to)
