#!/usr/bin/env python
"""What a choice brings in the same time: generators trained from nothing, each for so many seconds of one core, then PSNR on whole pictures that none was trained on.

    python benchmarks/ablate.py PHOTOS VALID [VALID ...] [--seconds 130] [--only adam muon ...]

The rate rises over a twentieth of the time and falls by a cosine; what is measured is the average of the weights. Two at a time, where there are two cores, disturb each other little: seconds are the processor's.
"""
import argparse, math, time
from functools import partial
from pathlib import Path
import torch
from sr_fastai.data import sr_dataloaders
from sr_fastai.engine import find_device, native_half, upscale
from sr_fastai.models import Generator
from sr_fastai.optim import fused_adam, muon
from sr_fastai.quality import measures, pairs, scores
from sr_fastai.symmetry import Symmetry

base = dict(opt=muon, lr=1e-3, width=48, depth=8, size=24, bs=16)
variants = {
    'adam':dict(opt=fused_adam), 'adam, twice the rate':dict(opt=fused_adam, lr=2e-3),
    'muon':{}, 'muon, twice the rate':dict(lr=2e-3), 'muon, half the rate':dict(lr=5e-4), 'muon, momentum .9':dict(opt=partial(muon, mom=.9)),
    'p4':dict(symmetry='p4'), 'p4m':dict(symmetry='p4m'), 'p4m, half the batch':dict(symmetry='p4m', bs=8), '48x16':dict(depth=16), 'p4m, 48x16':dict(symmetry='p4m', depth=16),
    'half the batch':dict(bs=8), 'crops of 48, a quarter of the batch':dict(size=48, bs=4), '64x16':dict(width=64, depth=16), '32x6':dict(width=32, depth=6)}

def trained(photos, seconds, opt, lr, width, depth, size, bs, symmetry=None, scale=2, decay=.999):
    "A generator, and how many batches it saw."
    torch.manual_seed(0)
    half = native_half(find_device('cpu'))
    dl = sr_dataloaders(photos, scale=scale, size=size, bs=bs, crops=44, seed=0, device='cpu').train
    net = Generator(scale, width, depth, symmetry=symmetry).to(memory_format=torch.channels_last)
    share = Symmetry(net).share if symmetry else lambda: None
    avg,opt = [p.detach().clone() for p in net.parameters()],opt(list(net.parameters()), lr=lr)
    n,t0 = 0,time.process_time()
    while True:
        for x,y in dl:
            f = (time.process_time()-t0)/seconds
            if f>=1:
                for p,a in zip(net.parameters(), avg): p.data = a
                return net.eval(),n
            opt.set_hyper('lr', lr*min(f/.05, .5+.5*math.cos(math.pi*max(0, f-.05)/.95)))
            x,y = (o.as_subclass(torch.Tensor) for o in (x,y))
            with torch.autocast('cpu', half, enabled=half is not None): out = net(x)
            (out-y).abs().mean().backward()
            share()
            opt.step()
            opt.zero_grad()
            n += 1
            with torch.no_grad(): torch._foreach_lerp_(avg, list(net.parameters()), 1-min(decay, n/(n+10)))

def score(net, folder):
    "Mean PSNR of luma over the pictures of a folder, dB."
    psnr = measures(['psnr'], net.scale)
    got = [scores(upscale(lr, net.scale, net), hr, psnr)['psnr'] for _,lr,hr in pairs(folder, net.scale)]
    return sum(got)/len(got)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('photos', type=Path)
    p.add_argument('valid', type=Path, nargs='+')
    p.add_argument('--seconds', type=float, default=130)
    p.add_argument('--only', nargs='*', choices=list(variants), default=list(variants))
    args = p.parse_args()
    torch.set_num_threads(1)
    print(f"| | batches | {' | '.join(v.name for v in args.valid)} |\n|---|---|{'---|'*len(args.valid)}")
    for k in args.only:
        net,n = trained(args.photos, args.seconds, **{**base, **variants[k]})
        print(f"| {k} | {n} | {' | '.join(f'{score(net, v):.3f}' for v in args.valid)} |", flush=True)

if __name__=='__main__': main()
