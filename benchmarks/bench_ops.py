"""Times `pixel_shuffle_sigmoid` forward, backward and to uint8, against eager torch, `torch.compile` of the same expression, a sigmoid alone and a copy.

    python benchmarks/bench_ops.py [--device cuda] [--compile none] [--sizes tile,x4] [--out FOLDER]

All ways of one row run in turn, and medians are taken, so that a busy moment hits all alike. Writes FOLDER/ops_DEVICE.md and .png.
"""
import argparse, platform
from functools import partial
from pathlib import Path
import torch
from torch import nn
from torch.nn import functional as F
from sr_fastai import models, ops

sizes = { # N, C*r*r, H, W, r
    'batch x2': (6, 12, 128, 128, 2), # a training batch
    'tile x2':  (1, 12, 512, 512, 2), # a tile of upscaling
    'frame x2': (1, 12, 1080, 1920, 2),
    'tile x3':  (1, 27, 512, 512, 3),
    'tile x4':  (1, 48, 512, 512, 4),
    'huge x2':  (4, 12, 2160, 3840, 2), # well beyond any cache; on GPUs only, unless asked for
}
layouts = {'contiguous':torch.contiguous_format, 'channels_last':torch.channels_last}

def eager(x, r): return torch.sigmoid(F.pixel_shuffle(x, r))
def eager_uint8(x, r): return (torch.sigmoid(F.pixel_shuffle(x, r)).float()*255).round().to(torch.uint8).permute(0,2,3,1).contiguous()
def eager_backward(g, y, r): return F.pixel_unshuffle(g*y*(1-y), r)

def cases(name, x, r, compiled):
    "What is done, the ways to do it, and the bytes that it has to move."
    y = ops.pixel_shuffle_sigmoid(x, r)
    g,native = torch.randn_like(y),torch.ops.sr_fastai
    size = x.numel()*x.element_size()
    fresh = partial(torch.compile, fullgraph=True, dynamic=False) if compiled else None
    def three(f, op, *args): return dict(eager=lambda: f(*args), native=lambda: op(*args), **({'compile':partial(fresh(f), *args)} if compiled else {}))
    return [('forward', dict(copy=x.clone, sigmoid=lambda: torch.sigmoid(x), **three(eager, ops.pixel_shuffle_sigmoid, x, r)), 2*size),
            # the kernel, and what torch's own formula does after the same forward pass
            ('backward', dict(copy=x.clone, sigmoid=lambda: torch.ops.aten.sigmoid_backward(g, y), **three(eager_backward, lambda g,y,r: native.pixel_shuffle_sigmoid_backward(g, y, r, x.dtype), g, y, r)), 3*size),
            ('uint8', dict(copy=x.clone, sigmoid=lambda: torch.sigmoid(x), **three(eager_uint8, ops.pixel_shuffle_sigmoid_uint8, x, r)), size+x.numel())]

def measure(device, names, compiled, rounds):
    rows = []
    for name in names:
        *shape,r = sizes[name]
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for layout,fmt in layouts.items():
                x = torch.randn(shape, device=device).to(dtype).to(memory_format=fmt)
                with torch.no_grad():
                    for what,fs,bytes_ in cases(name, x, r, compiled):
                        t = ops.median_times(fs, device, rounds)
                        copy = 2*x.numel()*x.element_size()/t['copy']
                        rows.append(dict(size=name, type=str(dtype)[6:], layout=layout, what=what, **{k:v*1e3 for k,v in t.items()}, gbs=bytes_/t['native']/1e9, share=bytes_/t['native']/copy))
                        print(line(rows[-1]), flush=True)
                torch._dynamo.reset()
    return rows

cols = ['size','type','layout','what','copy','sigmoid','eager','compile','native','native/sigmoid','eager/native','compile/native','GB/s','of copy']
def line(o):
    c = o.get('compile')
    f = lambda v,n=2: '' if v is None else f'{v:.{n}f}'
    return '| '+' | '.join([o['size'], o['type'], o['layout'], o['what'], f(o['copy'],3), f(o['sigmoid'],3), f(o['eager'],3), f(c,3), f(o['native'],3), f(o['native']/o['sigmoid']), f(o['eager']/o['native']),
        f(c and c/o['native']), f(o['gbs'],1), f'{o["share"]:.0%}'])+' |'

def generators(device, rounds):
    "Whole generators, with the operator and with plain torch in its place."
    for width,depth in ((32,6), (64,16)):
        g = models.Generator(width=width, depth=depth).to(device).to(memory_format=torch.channels_last).eval()
        x = torch.rand(1,3,256,256, device=device).to(memory_format=torch.channels_last)
        for dtype in (torch.float32, torch.bfloat16):
            g,x = g.to(dtype),x.to(dtype)
            def run(f):
                models.pixel_shuffle_sigmoid = f
                with torch.no_grad(): return g(x)
            t = ops.median_times({'plain':lambda: run(ops._torch), 'fused':lambda: run(ops.pixel_shuffle_sigmoid)}, device, rounds)
            models.pixel_shuffle_sigmoid = ops.pixel_shuffle_sigmoid
            yield f"| {width}x{depth} {str(dtype)[6:]} | {t['plain']*1e3:.2f} | {t['fused']*1e3:.2f} | {t['plain']/t['fused']:.3f} |"

def plot(rows, path):
    from matplotlib import pyplot as plt
    what = ['forward','backward','uint8']
    _,axs = plt.subplots(3, 1, figsize=(11,10), sharex=True)
    for ax,w in zip(axs, what):
        rs = [o for o in rows if o['what']==w]
        for i,k in enumerate(('eager','compile','native')):
            if k in rs[0]: ax.bar([j+(i-1)*.27 for j in range(len(rs))], [o[k]/o['copy'] for o in rs], .27, label=k)
        ax.axhline(1, color='k', lw=.8)
        ax.set(ylabel=f'{w}, copies of x', yscale='log', xticks=range(len(rs)))
        ax.set_xticklabels([f"{o['size']}\n{o['type']}\n{o['layout']}" for o in rs], fontsize=6, rotation=90)
    axs[0].legend()
    plt.tight_layout()
    plt.savefig(path, dpi=80)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    p.add_argument('--compile', default='all', choices=['all','none'], help='none leaves torch.compile out, which takes minutes to compile for CPUs')
    p.add_argument('--sizes', help='comma-separated starts of: '+', '.join(sizes))
    p.add_argument('--rounds', type=int, default=15)
    p.add_argument('--out', type=Path, default=Path(__file__).parent/'out')
    a = p.parse_args()
    name,reason = ops.build(a.device)
    if name!='native': raise SystemExit(f'no native operator on {a.device}: {reason}')
    cuda = torch.device(a.device).type=='cuda'
    names = [n for n in sizes if (n.startswith(tuple(a.sizes.split(','))) if a.sizes else cuda or n!='huge x2')]
    machine = torch.cuda.get_device_name(a.device) if cuda else f'{platform.machine()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}'
    head = f'# pixel_shuffle_sigmoid on {machine}, torch {torch.__version__}\n\nMedians in milliseconds.\n\n| {" | ".join(cols)} |\n|{"---|"*len(cols)}'
    print(head)
    rows = measure(a.device, names, a.compile=='all', a.rounds)
    whole = ['', 'Whole generators, 256x256 in, ms:', '', '| generator | plain torch | fused | ratio |', '|---|---|---|---|', *generators(a.device, a.rounds)]
    print('\n'.join(whole))
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out/f'ops_{a.device}.md').write_text('\n'.join([head, *map(line, rows), *whole])+'\n')
    plot(rows, a.out/f'ops_{a.device}.png')

if __name__=='__main__': main()
