#!/usr/bin/env python
"""Leave out the residual blocks of a generator that it misses least, so that it can be trained on in less time.

    python recipes/shorten.py runs/lite_x4/weights.safetensors 4 7 VALID runs/lite_x4_7.safetensors --step 2
    sr_train recipes/lite_x4_short.yaml --data PHOTOS --valid VALID
"""
from pathlib import Path
import numpy as np, torch
from fastcore.script import call_parse
from tqdm import tqdm
from sr_fastai import upscale
from sr_fastai.models import Generator
from sr_fastai.quality import measures, pairs, scores
from sr_fastai.weights import load_weights, read_card, save_weights

def added_means(net, lrs):
    "What each block of `net` adds to the features of `lrs`, in the mean: one tensor (channels,) a block."
    added = [[] for _ in net.blocks]
    hooks = [b.register_forward_hook(lambda m,x,y,means=means: means.append((y-x[0]).float().mean((0,2,3)))) for b,means in zip(net.blocks, added)]
    for lr in lrs: upscale(lr, net.scale, net)
    for h in hooks: h.remove()
    return [torch.stack(o).mean(0) for o in added]

def without(net, i, mean):
    "`net` without block `i`, from 1 up; `mean`, which that added, goes into the bias before it."
    short = Generator(**{**net.config, 'depth':net.depth-1})
    short.load_state_dict({k:v for k,v in net.state_dict().items() if not k.startswith('blocks.')}, strict=False)
    for o,b in zip(short.blocks, [b for j,b in enumerate(net.blocks) if j!=i]): o.load_state_dict(b.state_dict())
    with torch.no_grad(): short.blocks[i-1].conv2.bias += mean
    return short.eval()

@call_parse
def main(
    weights:str, # A name of shipped weights, or a file
    scale:int, # Theirs
    depth:int, # Number of blocks to keep, the first of all among them
    valid:Path, # Folder of HR pictures that were not trained on
    out:Path, # The file to write, `.safetensors`
    step:int=5 # Look at every so-manieth picture
):
    "Leave out, one after another, the block without which PSNR is highest."
    net,found = load_weights(weights, scale),list(pairs(valid, scale))[::step]
    if not 0<depth<net.depth: raise SystemExit(f"{weights} has {net.depth} blocks; keep fewer, and at least one, not {depth}")
    lrs = [lr for _,lr,_ in found]
    funcs = measures(['psnr'], scale)
    def mean_psnr(m): return np.mean([scores(upscale(lr, scale, m), hr, funcs)['psnr'] for _,lr,hr in found])
    print(f'{net.depth} blocks: {mean_psnr(net):.3f} dB')
    was = list(range(net.depth))
    while net.depth>depth:
        means = added_means(net, lrs)
        tried = [(mean_psnr(short := without(net, i, means[i])), i, short) for i in tqdm(range(1, net.depth), f'{net.depth-1} blocks', leave=False)]
        best,i,net = max(tried, key=lambda o: o[0])
        print(f'{net.depth} blocks: {best:.3f} dB without block {was.pop(i)}')
    save_weights(net, out, dict(read_card(weights, scale), shortened=f'to blocks {was}'))
