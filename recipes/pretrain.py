#!/usr/bin/env python
"""Train a generator alone, on photographs, with a pixel loss: how the shipped PSNR weights were made.

    python recipes/pretrain.py PHOTOS VALID --out runs/x2_base --batches 20000

A model card has the exact command of its weights. `--init` goes on from finished ones, with another loss or patch size. Stop it at any time; the same command goes on from the last checkpoint, batch for batch."""
import json, math, subprocess, time
from pathlib import Path
import numpy as np, torch
from PIL import Image
from fastcore.script import call_parse
from sr_fastai.files import atomic_path
from sr_fastai.losses import PixelLoss
from sr_fastai.metrics import psnr
from sr_fastai.models import Generator
from sr_fastai.resample import bicubic_down
from sr_fastai.weights import load_weights, read_card, save_weights

exts = {'.png','.webp','.jpg','.jpeg','.tif','.bmp'}

def load_pairs(folder, scale):
    "All photographs below `folder` as (LR, HR) uint8 arrays, HR cropped to a multiple of `scale`."
    files = sorted(f for f in Path(folder).rglob('*') if f.suffix.lower() in exts)
    if not files: raise SystemExit(f'pretrain: no photographs in {folder}: give a folder with {", ".join(sorted(exts))} files')
    hrs = [np.asarray(Image.open(f).convert('RGB')) for f in files]
    hrs = [h[:h.shape[0]//scale*scale, :h.shape[1]//scale*scale] for h in hrs]
    return [(bicubic_down(h, scale), h) for h in hrs]

def to_batch(xs):
    "HWC uint8 arrays to a channels-last float tensor in 0..1."
    return torch.from_numpy(np.stack(xs)).permute(0,3,1,2).float().div_(255).contiguous(memory_format=torch.channels_last)

def random_batch(pairs, scale, bs, patch, rng):
    "`bs` aligned crops of `patch` LR pixels, each in one of the eight flips and turns."
    lrs,hrs = [],[]
    for i in rng.integers(len(pairs), size=bs):
        lr,hr = pairs[i]
        r,c = rng.integers(lr.shape[0]-patch+1),rng.integers(lr.shape[1]-patch+1)
        lr,hr = lr[r:r+patch, c:c+patch],hr[r*scale:(r+patch)*scale, c*scale:(c+patch)*scale]
        flip_r,flip_c,turn = rng.integers(2, size=3)
        if flip_r: lr,hr = lr[::-1],hr[::-1]
        if flip_c: lr,hr = lr[:,::-1],hr[:,::-1]
        if turn: lr,hr = lr.swapaxes(0,1),hr.swapaxes(0,1)
        lrs.append(lr); hrs.append(hr)
    return to_batch(lrs),to_batch(hrs)

@torch.no_grad()
def mean_psnr(net, pairs):
    "Mean PSNR in dB over `pairs`, of Y without a border of `scale` pixels."
    net.eval()
    res = [psnr(net(to_batch([lr])), to_batch([hr]), border=net.scale).item() for lr,hr in pairs]
    net.train()
    return sum(res)/len(res)

@call_parse
def main(
    photos:Path, # Folder of HR photographs to train on, searched recursively
    valid:Path, # Folder of HR photographs to validate on
    out:Path=Path('runs/pretrain'), # Where checkpoint, log and weights go
    scale:int=2, # Upscaling factor
    width:int=48, # Channels of the generator
    depth:int=8, # Its residual blocks
    batches:int=30000, # Length of the whole schedule
    bs:int=16, # Patches per batch
    patch:int=32, # Side of an LR patch, in pixels
    loss:str='l1', # 'l1', 'mse' or 'charbonnier'
    init:Path=None, # Weights to start from; random ones if None
    lr:float=1e-3, # Peak of the learning rate: small nets that start near the identity take ten times the usual 1e-4
    warmup:int=500, # Batches of linear warm-up; a half cosine to zero follows
    ema:float=.999, # Decay of the averaged weights, which are validated and exported
    every:int=1000, # Batches between validations and checkpoints
    seed:int=0, # Of the initial weights, and with the batch number of each batch
    device:str='cpu' # 'cpu' or 'cuda'; the convolutions run in bfloat16 on both
):
    "Train a generator alone, on photographs, with a pixel loss."
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    ckpt,log = out/'checkpoint.pt',out/'log.jsonl'
    net = load_weights(init, scale).train().requires_grad_() if init else Generator(scale, width, depth)
    net = net.to(device, memory_format=torch.channels_last)
    avg = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(ema))
    opt = torch.optim.Adam(net.parameters(), lr=lr, betas=(.9,.99))
    sched = torch.optim.lr_scheduler.LambdaLR(opt, lambda i: min((i+1)/warmup, .5+.5*math.cos(math.pi*i/batches)))
    state = dict(net=net, avg=avg, opt=opt, sched=sched)
    start,seconds = 0,0.
    if ckpt.exists():
        saved = torch.load(ckpt, weights_only=True)
        for k,o in state.items(): o.load_state_dict(saved[k])
        start,seconds = saved['step'],saved['seconds']
        print(f'going on from batch {start}')
    train_pairs,valid_pairs = load_pairs(photos, scale),load_pairs(valid, scale)
    print(f'{len(train_pairs)} photographs to train on, {len(valid_pairs)} to validate on, {sum(p.numel() for p in net.parameters()):,} parameters')
    loss_func = PixelLoss(loss)
    tick,losses = time.time(),[]
    for step in range(start, batches):
        # seeded by batch number, so that a resumed run sees the same data as one never stopped
        x,y = random_batch(train_pairs, scale, bs, patch, np.random.default_rng((seed,step)))
        with torch.autocast(device, torch.bfloat16): pred = net(x.to(device))
        err = loss_func(pred, y.to(device))
        opt.zero_grad(); err.backward(); opt.step(); sched.step(); avg.update_parameters(net)
        losses.append(err.item())
        if (step+1)%every==0 or step+1==batches:
            seconds += time.time()-tick
            row = dict(step=step+1, loss=sum(losses)/len(losses), psnr_y=mean_psnr(avg.module, valid_pairs), seconds=round(seconds))
            with atomic_path(ckpt) as tmp: torch.save({**{k:o.state_dict() for k,o in state.items()}, 'step':step+1, 'seconds':seconds}, tmp)
            with log.open('a') as f: f.write(json.dumps(row)+'\n')
            print(json.dumps(row), flush=True)
            tick,losses = time.time(),[]
    commit = subprocess.run(['git','describe','--always','--dirty'], capture_output=True, text=True).stdout.strip()
    save_weights(avg.module.eval(), out/'weights.safetensors', card=dict(
        command=f'python recipes/pretrain.py PHOTOS VALID --scale {scale} --width {net.width} --depth {net.depth} --batches {batches} --bs {bs} --patch {patch} --loss {loss} --lr {lr} --warmup {warmup} --ema {ema} --seed {seed}',
        init=read_card(init) if init else None, seed=seed, commit=commit, hours=round(seconds/3600, 2), psnr_y_valid=round(mean_psnr(avg.module, valid_pairs), 3)))
