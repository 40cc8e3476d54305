"""What tracking costs: `python benchmarks/bench_tracking.py`. CPU time of the callback in each batch, in the training's thread and in its own, and of the pictures at an epoch's end; the time per batch with and
without, in turns on the same learner; and from nothing to a run, offline. The batch is tiny, so that its own time does not drown the difference; the run's files go to a temporary folder."""
import collections, io, os, statistics, subprocess, sys, tempfile, time, warnings
from contextlib import redirect_stderr
warnings.filterwarnings('ignore')
tmp = tempfile.mkdtemp()
os.environ.update(WANDB_MODE='offline', WANDB_DATA_DIR=tmp, WANDB_CACHE_DIR=tmp)
import torch
from sr_fastai.data import div2k_dataloaders, untar_div2k
from sr_fastai.learner import gan_learner
from sr_fastai.models import Discriminator, Generator
from sr_fastai.tracking import Track

ROUNDS,CROPS = 5,50
torch.set_num_threads(1)
spent = collections.Counter()

class Timed(Track):
    "A `Track` that knows what it costs."
    def _timed(self, name, f, *args):
        t = time.thread_time()
        try: return f(*args)
        finally: spent[name] += time.thread_time()-t
    def __call__(self, event): return self._timed(event, super().__call__, event)
    def _log(self, rows): return self._timed('log', super()._log, rows)
    def _panels(self, *args): return self._timed('panels', super()._panels, *args)

dls = div2k_dataloaders(untar_div2k(sample=True), size=12, bs=4, crops=CROPS, valid_size=12, seed=1)
learn = gan_learner(dls, Generator(width=8, depth=1), Discriminator(width=8, depth=2, hidden=16))
t = time.perf_counter()
track = Timed(folder=tmp, n_images=4)
with redirect_stderr(io.StringIO()): track.start()
start = time.perf_counter()-t

def batches(cbs):
    "Milliseconds per batch of an epoch, its validation included."
    t = time.perf_counter()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=cbs)
    return (time.perf_counter()-t)/len(dls.train)*1e3

batches(None), batches(track)
spent.clear()
off,on = zip(*[(batches(None),batches(track)) for _ in range(ROUNDS)])
t = time.perf_counter()
track.finish()
n = ROUNDS*len(dls.train)
own,thread = (spent['before_batch']+spent['after_batch'])/n*1e3,(spent['log']-spent['panels'])/n*1e3
print(f'CPU time a batch: {own:.3f} ms in the training thread, {thread:.3f} ms in its own; an epoch: {(spent["panels"]+spent["after_epoch"])/ROUNDS*1e3:.0f} ms for 4 panels and the loss figure')
print(f'a batch: {statistics.median(off):.2f} ms without, {statistics.median(on):.2f} ms with tracking; median difference {statistics.median(b-a for a,b in zip(off,on)):.2f} ms '
      f'({min(b-a for a,b in zip(off,on)):.2f} to {max(b-a for a,b in zip(off,on)):.2f}) over {ROUNDS} pairs of {len(dls.train)} batches')
print(f'from Track() to a run, offline: {start:.2f} s, of which `import wandb` is most; finish: {time.perf_counter()-t:.2f} s')
