#!/usr/bin/env python
"""Eight things that fastai's `GANLearner` does, and what `gan_learner` does instead: both are run, and what was seen is printed as a table.

    python benchmarks/compare_fastai.py
"""
import os, tempfile, warnings
from pathlib import Path
import torch
from torch import nn
from torch.nn import functional as F
from fastai.vision.all import Callback, DataLoaders, TfmdDL, TfmdLists, Transform
from fastai.vision.gan import FixedGANSwitcher, GANDiscriminativeLR, GANLearner
from sr_fastai.learner import gan_learner
from sr_fastai.models import Generator, Discriminator

class Pick(Transform):
    "The i-th pair."
    def __init__(self, items): self.items = items
    def encodes(self, i): return self.items[i]

def dls(n=8):
    g = torch.Generator().manual_seed(0)
    hr = F.interpolate(torch.rand(n+4,3,6,6, generator=g), size=(24,24), mode='bicubic').clamp(0,1)
    items = list(zip(F.avg_pool2d(hr, 2), hr))
    return DataLoaders(*[TfmdDL(TfmdLists(range(len(p)), Pick(p)), bs=2, num_workers=0) for p in (items[:n],items[n:])])

class BNGenerator(Generator):
    def __init__(self):
        super().__init__(2, 8, 1)
        self.blocks.append(nn.BatchNorm2d(8))

def nets(): return BNGenerator(),Discriminator(4, 2, 2, 8, norm='batch')
def bce(l, real): return F.softplus(-l if real else l).mean()
def stock(path, n_crit=1, **kw):
    return GANLearner(dls(), *nets(), gen_loss_func=lambda f,o,t: F.l1_loss(o, t)+1e-3*bce(f, True), crit_loss_func=lambda r,f: (bce(r, True)+bce(f, False))/2, switcher=FixedGANSwitcher(n_crit), path=path, lr=1e-3, **kw)
def ours(path, n_crit=1, **kw): return gan_learner(dls(), *nets(), n_crit=n_crit, path=path, **{'lr':1e-3, **kw})

def fit(learn, n=1, method='fit', *args, **kw):
    with learn.no_bar(), learn.no_logging(): getattr(learn, method)(n, *args, **kw)
    return learn
def weights(m): return torch.cat([p.detach().flatten() for p in m.parameters()])

class Watch(Callback):
    "Turns, and how far the net that rests moved at most."
    order = 90
    def before_fit(self): self.turns,self.moved,self.lrs = [],0.,[]
    def before_epoch(self): self.turns.append('')
    def nets(self): return weights(self.model.critic),weights(self.model.generator)
    def before_batch(self):
        if self.training: self.gen,self.was = self.gan_trainer.gen_mode,self.nets()
    def after_step(self):
        if self.epoch or self.iter>1: self.moved = max(self.moved, (self.nets()[not self.gen]-self.was[not self.gen]).abs().max().item())
    def after_batch(self):
        if self.training: self.turns[-1] += 'CG'[self.gen]; self.lrs.append([h['lr'] for h in self.opt.hypers])

def rests(make, path):
    w = Watch()
    fit(make(path), cbs=w)
    return f'moves by {w.moved:.1e} at lr 1e-3'
def validates(make, path):
    learn = fit(make(path))
    was = {k:v.clone() for k,v in learn.model.state_dict().items()}
    with learn.no_bar(): learn.validate()
    n = sum(not torch.equal(v, was[k]) for k,v in learn.model.state_dict().items())
    return f'{n} running statistics change' if n else 'nothing changes'
def exports(make, path):
    learn = fit(make(path))
    data = learn.dls
    try: learn.export()
    except Exception as e: res = f'{type(e).__name__}'
    else: res = 'a file'
    return f"{res}; the learner {'as it was' if learn.dls is data else 'has lost its data'}"
def resets(make, path):
    learn = fit(fit(make(path)), reset_opt=True)
    n,of = sum(p.numel() for ps in learn.opt.param_lists for p in ps),sum(p.numel() for p in learn.model.parameters())
    return f'optimizes {n} of {of} weights'
def row(make, path):
    learn = fit(make(path))
    r = dict(zip(learn.recorder.metric_names[1:], learn.recorder.values[-1]))
    if 'gen_loss' in r: return 'valid_loss '+('is' if abs(r['valid_loss']-r['gen_loss'])<1e-6 else 'is not')+' gen_loss again; crit_loss '+('is the last in training' if abs(r['crit_loss']-learn.loss_func.crit_loss.item())<1e-6 else 'of validation')
    return 'both losses of the validation set: ' + ', '.join(k for k in r if 'valid' in k or k.startswith('d_'))
def epochs(make, path):
    w = Watch()
    fit(make(path, 3), 3, cbs=w)
    return ' '.join(w.turns)
def rates(make, path):
    w = Watch()
    two = make is stock
    try: fit(make(path, **({} if two else dict(lr=(1e-3,5e-3)))), 2, 'fit_one_cycle', cbs=[GANDiscriminativeLR(5.), w] if two else w)
    except Exception as e: return str(e).splitlines()[-1].strip()[:80]
    last = w.lrs[-1]
    return f"the critic's rate is {max(c[-1] for c in w.lrs)/max(c[0] for c in w.lrs):.0f} times the generator's, through the whole cycle" if len(last)>1 else f'one rate for both; it ends at {last[0]:.1e}, and its peak is {max(c[0] for c in w.lrs):.1e}'
class Wrap(Callback):
    order = 11 # as fastai's `DistributedTrainer`
    def before_fit(self): self.learn.model = nn.parallel.DistributedDataParallel(self.model, find_unused_parameters=True)

def wrapped(make, path):
    "As accelerate wraps the model for several processes; here there is one."
    import torch.distributed as dist
    os.environ.update(RANK='0', WORLD_SIZE='1', LOCAL_RANK='0')
    dist.init_process_group('gloo', init_method=f'file://{path}/store', rank=0, world_size=1)
    learn = make(path)
    try:
        if make is stock: fit(learn, cbs=Wrap())
        else:
            import sr_fastai.distributed
            fit(learn.to_distributed())
    except Exception as e: return str(e).splitlines()[-1].strip()[:80]
    finally: dist.destroy_process_group()
    return 'trains'

def main():
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    print('| | stock `GANLearner` | `gan_learner` |\n|---|---|---|')
    for name,f in (('the net that rests', rests), ('`validate()`', validates), ('`export()` after `fit`', exports), ('`fit(reset_opt=True)`', resets), ('validation row', row),
                   ('`n_crit=3`, 4 batches an epoch', epochs), ('two rates with `fit_one_cycle`', rates), ('DistributedDataParallel', wrapped)):
        res = []
        for make in (stock,ours):
            with tempfile.TemporaryDirectory() as d:
                torch.manual_seed(0)
                res.append(f(make, Path(d)))
        print(f'| {name} | {res[0]} | {res[1]} |', flush=True)

if __name__=='__main__': main()
