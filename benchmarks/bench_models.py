#!/usr/bin/env python
"""What the shipped models cost, beside a ruler: a plain `Generator(2, 64, 16)` in float32, channels last, whose cost is called .78, so that IMDN x2 as published costs 1.

    python benchmarks/bench_models.py [--side 256] [--rounds 9] [--models base runs/mine/weights.safetensors] [--threads 2]

One LR picture of side x side pixels, uint8 in and out, by `upscale` with all defaults; interleaved rounds, medians, the ratio of each to the ruler of its own round.
"""
import argparse, os, statistics, time
from functools import partial
import numpy as np, torch
from sr_fastai.engine import upscale
from sr_fastai.models import Generator
from sr_fastai.weights import load_weights, registry

RULER = .78

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--side', type=int, default=256, help='of the LR picture, pixels')
    p.add_argument('--rounds', type=int, default=9)
    p.add_argument('--models', nargs='*', help='names of shipped weights, or files (all that are shipped)')
    p.add_argument('--threads', type=int, default=2)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    a = np.random.default_rng(0).integers(0, 256, (args.side,args.side,3), dtype=np.uint8)
    ruler = Generator(2, 64, 16).to(memory_format=torch.channels_last)
    runs = {'ruler':lambda: upscale(a, 2, ruler, precision='fp32', tile=None)}
    models = [(o['name'],o['scale']) for o in registry() if not args.models or o['name'] in args.models]
    models += [(m,load_weights(m).scale) for m in args.models or () if m.endswith('.safetensors')]
    for m,s in models: runs[f'{m} x{s}'] = partial(upscale, a, s, m)
    times = {k:[] for k in runs}
    for i in range(args.rounds+1): # the first warms up
        for k,run in runs.items():
            t = time.perf_counter()
            run()
            if i: times[k].append(time.perf_counter()-t)
    print(f'{args.threads} of {os.cpu_count()} cores, torch {torch.__version__}, {args.side}x{args.side}, {args.rounds} rounds\n\n| model | seconds | cost |\n|---|---|---|')
    for k,ts in times.items():
        print(f"| {k} | {statistics.median(ts):.3f} | {RULER*statistics.median(t/r for t,r in zip(ts, times['ruler'])):.2f} |")

if __name__=='__main__': main()
