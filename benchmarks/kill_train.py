"""Kills trainings with SIGKILL at random moments, starts the same command again until it ends, and compares the weights with those of a run never killed, bit for bit.

    python benchmarks/kill_train.py            # twenty kills over all modes
    python benchmarks/kill_train.py --kills 40 --modes joint bf16 --seed 1
"""
import argparse, os, random, signal, subprocess, sys, tempfile, time
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file

# how to make the learner and how to train it; `every` 2 or 3 batches a checkpoint, so that many kills meet one being written
MODES = dict(
    fit       = dict(),
    one_cycle = dict(how='fit_one_cycle'),
    flat_cos  = dict(how='fit_flat_cos', n_crit=2),
    pretrain  = dict(how='fit_one_cycle', pretrain=2),
    joint     = dict(how='fit_one_cycle', joint=True),
    ema       = dict(how='fit_one_cycle', ema=.9),
    bf16      = dict(bf16=True, ema=.9, pretrain=1),
    workers   = dict(how='fit_one_cycle', num_workers=2))

def learner(bf16=False, num_workers=0, **kwargs):
    from fastai.basics import Callback, set_seed
    from sr_fastai.data import div2k_dataloaders, untar_div2k
    from sr_fastai.learner import gan_learner
    from sr_fastai.models import Discriminator, Generator

    class Noise(Callback):
        "Draws on all random numbers that there are, as augmentations do."
        def before_batch(self):
            import numpy as np
            if self.training: self.learn.xb = (self.xb[0] + .01*torch.randn_like(self.xb[0])*random.random()*np.random.rand(),)

    set_seed(42)
    dls = div2k_dataloaders(untar_div2k(sample=True), size=8, bs=2, crops=3, num_workers=num_workers)
    learn = gan_learner(dls, Generator(width=8, depth=1), Discriminator(width=4, depth=2, pool=2, hidden=8, norm='batch'), lr=1e-3, cbs=Noise(), **kwargs)
    return learn.to_bf16() if bf16 else learn

def run(mode, folder, epochs=4, every=2):
    "The command that is killed and started again: train, then write all weights and curves to `weights.safetensors`."
    from fastai.callback.all import ProgressCallback
    from sr_fastai.checkpoint import Checkpoint
    torch.set_num_threads(1)
    folder = Path(folder)
    kwargs = dict(MODES[mode])
    how,pretrain = kwargs.pop('how', 'fit'),kwargs.pop('pretrain', 0)
    learn = learner(**kwargs)
    learn.remove_cb(ProgressCallback)
    learn.logger = lambda _: None
    (folder/'started').touch()
    if pretrain: learn.pretrain(pretrain, cbs=Checkpoint(folder/'pretrain', every=every))
    getattr(learn, how)(epochs, cbs=Checkpoint(folder/'gan', every=every))
    curves = torch.tensor([[float('nan') if v is None else v for v in row] for row in learn.recorder.values], dtype=torch.float64)
    save_file(dict({k:v.contiguous() for k,v in learn.model.state_dict().items()}, curves=curves), folder/'weights.safetensors')

def same(a, b):
    "Are the results of two runs equal, bit for bit?"
    a,b = (load_file(Path(o)/'weights.safetensors') for o in (a,b))
    return a.keys()==b.keys() and all(torch.equal(a[k], b[k]) or k=='curves' and torch.equal(a[k].nan_to_num(), b[k].nan_to_num()) for k in a)

def wait(proc, folder):
    "Until the process has begun to train."
    while proc.poll() is None and not (folder/'started').exists(): time.sleep(.005)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--kills', type=int, default=20)
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--modes', nargs='+', choices=MODES, default=list(MODES))
    p.add_argument('--child', nargs=2, metavar=('MODE','FOLDER'), help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.child: return run(*args.child)

    rng,tmp,kills,failed = random.Random(args.seed),Path(tempfile.mkdtemp()),0,0
    def start(mode, folder):
        folder.mkdir(exist_ok=True)
        (folder/'started').unlink(missing_ok=True)
        proc = subprocess.Popen([sys.executable, '-W', 'ignore', __file__, '--child', mode, folder], env={**os.environ, 'OMP_NUM_THREADS':'1'}, stdout=subprocess.DEVNULL, start_new_session=True)
        wait(proc, folder)
        return proc,time.time()
    for i,mode in enumerate(args.modes):
        whole,killed = tmp/f'{mode}_whole',tmp/f'{mode}_killed'
        proc,begun = start(mode, whole)
        if proc.wait(): sys.exit(f'{mode}: the run that is not killed fails')
        took,mine,parts = time.time()-begun,0,0
        share = args.kills//len(args.modes) + (i < args.kills%len(args.modes))
        while True:
            proc,begun = start(mode, killed)
            if mine<share:
                try: proc.wait(rng.uniform(0, took/2)) # each run goes on where the last one was
                except subprocess.TimeoutExpired:
                    os.killpg(proc.pid, signal.SIGKILL) # with its workers
                    proc.wait()
                    mine,parts = mine+1,parts+len(list(killed.rglob('.*.part')))
                    continue
            if proc.wait(): sys.exit(f'{mode}: the run fails after {mine} kills')
            break
        ok = same(whole, killed)
        kills,failed = kills+mine,failed+(not ok)
        print(f'{mode:10} {mine} kills in {took:.1f} s of training, {parts} of them while a file was written: {"bit-identical" if ok else "DIFFERENT"}', flush=True)
    print(f'{kills} kills, {failed} of {len(args.modes)} runs different')
    sys.exit(failed>0)

if __name__=='__main__': main()
