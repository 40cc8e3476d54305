#!/usr/bin/env python
"""Pairs per second of `learn.fit`, beside a bare PyTorch loop with the same nets, data and steps, and beside fastai's own `GANLearner`; and what the callbacks of a batch cost. Interleaved rounds, medians.

    python benchmarks/bench_train.py [--size 48] [--bs 8] [--width 32] [--depth 6] [--critic-width 32] [--batches 8] [--rounds 5] [--precision fp32] [--device cpu] [--threads 2] [--compile]

- bare: the same turns written out, torch's fused AdamW
- ours: `gan_learner(...)` with all its defaults, without a progress bar
- stock: fastai's `GANLearner` with the same losses
- joint: each batch trains both nets. In turns it takes two batches to step both, so what is compared is pairs that both nets have learnt from, a second.
- overhead: nets of one 1x1 convolution, where a batch is nothing but callbacks, less the bare loop on them

Only training batches are timed, on batches that lie ready in memory.
"""
import argparse, platform, statistics, time
import torch
from contextlib import nullcontext
from functools import partial
from torch import nn
from torch.nn import functional as F
from fastai.vision.all import Callback, DataLoaders
from fastai.vision.gan import GANLearner
from sr_fastai.learner import gan_learner
from sr_fastai.models import Generator, Discriminator

class Ready:
    "A loader whose batches lie ready."
    def __init__(self, batches): self.batches,self.bs = batches,len(batches[0][0])
    def __len__(self): return len(self.batches)
    def __iter__(self): return iter(self.batches)

class Timer(Callback):
    order = -100
    def sync(self):
        if torch.cuda.is_available(): torch.cuda.synchronize()
    def before_train(self): self.sync(); self.t = time.perf_counter()
    def after_train(self): self.sync(); self.took = time.perf_counter()-self.t

def adv(logits, real): return F.softplus(-logits if real else logits).mean()

class Bare:
    "The loop that a practitioner would write."
    def __init__(self, gen, crit, dl, precision, joint=False):
        self.nets,self.dl,self.joint,self.k = (gen,crit),dl,joint,0
        self.opts = [torch.optim.AdamW(m.parameters(), 1e-4, (.9,.99), weight_decay=0., fused=True) for m in self.nets]
        dev = next(gen.parameters()).device
        self.amp = partial(torch.autocast, dev.type, torch.bfloat16) if precision=='bf16' else nullcontext
        self.sync = torch.cuda.synchronize if dev.type=='cuda' else lambda: None

    def critic(self, fake, hr):
        crit = self.nets[1]
        crit.requires_grad_(True).train()
        with self.amp(): loss = (adv(crit(hr).float(), True) + adv(crit(fake.detach()).float(), False))/2
        self.step(1, loss)

    def generator(self, fake, hr):
        crit = self.nets[1]
        crit.requires_grad_(False).eval()
        with self.amp(): loss = F.l1_loss(fake, hr) + 1e-3*adv(crit(fake).float(), True)
        self.step(0, loss)

    def step(self, i, loss):
        loss.backward()
        self.opts[i].step()
        self.opts[i].zero_grad()

    def epoch(self):
        gen = self.nets[0]
        gen.train()
        self.sync()
        t = time.perf_counter()
        for lr,hr in self.dl:
            turn,self.k = self.k%2,self.k+1
            with torch.set_grad_enabled(self.joint or turn==1), self.amp(): fake = gen(lr)
            if self.joint or turn==0: self.critic(fake, hr)
            if self.joint or turn==1: self.generator(fake, hr)
        self.sync()
        return time.perf_counter()-t

class Fit:
    "An epoch of a learner."
    def __init__(self, learn): self.learn,self.timer = learn,Timer()
    def epoch(self):
        with self.learn.no_bar(), self.learn.no_logging(): self.learn.fit(1, cbs=self.timer)
        return self.timer.took

def rounds(contenders, n):
    "Seconds an epoch, by name, each round in turn; the first is for warming up."
    took = {k:[] for k in contenders}
    for i in range(n+1):
        for k,c in contenders.items():
            s = c.epoch()
            if i: took[k].append(s)
    return took

def ratio(took, a, b): return statistics.median(x/y for x,y in zip(took[a], took[b]))

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for k,v in dict(size=48, bs=8, width=32, depth=6, critic_width=32, batches=8, rounds=5, threads=2).items(): p.add_argument(f"--{k.replace('_','-')}", type=int, default=v)
    p.add_argument('--precision', choices=['fp32','bf16'], default='fp32')
    p.add_argument('--device', default='cpu')
    p.add_argument('--compile', action='store_true', help='also ours with both nets compiled')
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    dev = torch.device(args.device)
    def batch(n, bs): return (torch.rand(bs,3,n,n, device=dev),torch.rand(bs,3,2*n,2*n, device=dev))
    def nets(): return Generator(2, args.width, args.depth).to(dev),Discriminator(args.critic_width).to(dev)
    def dls(n, bs, batches): return DataLoaders(Ready([batch(n, bs) for _ in range(batches)]), Ready([batch(n, 1)]), device=dev)
    def ours(dls, nets, **kw):
        learn = gan_learner(dls, *nets, metrics=[], **kw)
        learn.metrics = []
        return Fit(learn.to_bf16() if args.precision=='bf16' else learn)
    def stock(dls, nets):
        return Fit(GANLearner(dls, *nets, gen_loss_func=lambda f,o,t: F.l1_loss(o, t) + 1e-3*adv(f, True), crit_loss_func=lambda r,f: (adv(r, True) + adv(f, False))/2, lr=1e-4))
    data = dls(args.size, args.bs, args.batches)
    what = {'bare':Bare(*nets(), data.train, args.precision), 'ours':ours(data, nets()), 'bare joint':Bare(*nets(), data.train, args.precision, joint=True), 'ours joint':ours(data, nets(), joint=True)}
    if args.precision=='fp32': what['stock'] = stock(data, nets())
    if args.compile:
        both = nets()
        for m in both: m.compile()
        what['ours compiled'] = ours(data, both)
    took = rounds(what, args.rounds)
    print(f"{platform.processor() or platform.machine()}, {args.threads} threads, {torch.cuda.get_device_name() if dev.type=='cuda' else 'CPU'}, torch {torch.__version__}, {args.precision}; "
          f"LR {args.size}x{args.size}, batch {args.bs}, generator {args.width}x{args.depth}, critic width {args.critic_width}; medians of {args.rounds} rounds of {args.batches} batches")
    for k,s in took.items(): print(f"{k:14} {args.bs*args.batches/statistics.median(s):8.2f} pairs/s, {1000*statistics.median(s)/args.batches:8.1f} ms a batch")
    print(f"ours / bare loop         {ratio(took, 'bare', 'ours'):.3f} in turns, {ratio(took, 'bare joint', 'ours joint'):.3f} joint")
    if 'stock' in took: print(f"ours / stock GANLearner  {ratio(took, 'stock', 'ours'):.3f}")
    if args.compile: print(f"compiled / not           {ratio(took, 'ours', 'ours compiled'):.3f}")
    print(f"joint / in turns         {2*ratio(took, 'ours', 'ours joint'):.3f} in pairs that both nets learnt from ({2*ratio(took, 'bare', 'bare joint'):.3f} in the bare loop)")

    def tiny():
        gen,crit = nn.Sequential(nn.PixelShuffle(1), nn.Upsample(scale_factor=2), nn.Conv2d(3,3,1)),nn.Sequential(nn.Conv2d(3,1,1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return gen.to(dev),crit.to(dev)
    data = dls(4, 1, 200)
    took = rounds({'bare':Bare(*tiny(), data.train, args.precision), 'ours':ours(data, tiny()), 'all':ours(data, tiny(), joint=True, ema=.999, clip_grad=1.), 'bare joint':Bare(*tiny(), data.train, args.precision, joint=True),
                   **({'stock':stock(data, tiny())} if args.precision=='fp32' else {})}, args.rounds)
    def more(a, b): return 1000*statistics.median(x-y for x,y in zip(took[a], took[b]))/200
    print(f"callbacks' overhead      {more('ours', 'bare'):.2f} ms a batch; joint with EMA and clipping {more('all', 'bare joint'):.2f}" + (f"; stock {more('stock', 'bare'):.2f}" if 'stock' in took else ''))

if __name__=='__main__': main()
