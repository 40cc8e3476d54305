"""Two processes against one with the same batches; what a process does that has lost the other. This file is also the script that the processes run: `main` is told what to do by its argument."""
import json, math, os, socket, subprocess, sys, time
from functools import partial
from pathlib import Path
import pytest, torch
from torch.nn import functional as F
from sr_fastai.processes import gather_objects, n_processes, process_mean, process_rank

def pairs(n, seed=0):
    "Smooth HR pictures and their LR, so that a few steps learn something."
    g = torch.Generator().manual_seed(seed)
    hr = F.interpolate(torch.rand(n,3,6,6, generator=g), size=(24,24), mode='bicubic').clamp(0,1)
    return list(zip(F.avg_pool2d(hr, 2), hr))

def learner(path, bs=4, n=10, n_valid=5, norm=None, seed=0, shuffle=False, **kwargs):
    "A tiny learner whose batches hold `bs` pairs together, however many processes there are."
    from fastai.vision.all import Adam, DataLoaders, TfmdDL, TfmdLists, Transform, set_seed
    from sr_fastai.learner import gan_learner
    from sr_fastai.models import Discriminator, Generator
    import sr_fastai.distributed
    class Pick(Transform):
        def __init__(self, items): self.items = items
        def encodes(self, i): return self.items[i]
    set_seed(seed)
    bs = bs//int(os.environ.get('WORLD_SIZE', 1))
    dls = DataLoaders(*[TfmdDL(TfmdLists(range(len(p)), Pick(p)), bs=bs, shuffle=s, drop_last=s, num_workers=0) for p,s in ((pairs(n),shuffle),(pairs(n_valid, 1),False))])
    # a gradient that is 0 but for its rounding, as the last bias' in a relativistic loss, is none of Adam's full steps with this eps
    return gan_learner(dls, Generator(width=8, depth=1), Discriminator(width=4, depth=2, pool=2, hidden=8, norm=norm), path=path,
                       **{'lr':1e-3, 'w_adv':.1, 'opt_func':partial(Adam, eps=1e-4), **kwargs})

def trace(learn, fit):
    "What `fit` does to `learn`: each loss over all processes, rows of the recorder, the weights at the end."
    from fastai.vision.all import Callback
    class Losses(Callback):
        order = 50
        def before_fit(self): self.seen = []
        def after_batch(self):
            if self.training: self.seen.append(process_mean(self.loss.detach().mean()).item())
    with learn.no_bar(), learn.no_logging(), learn.distrib_ctx(timeout=60):
        learn.add_cb(cb := Losses())
        fit(learn)
        params = torch.cat([p.detach().flatten() for p in learn.model.parameters()])
        assert all(torch.equal(params, p) for p in gather_objects(params)), 'the processes have trained different nets'
        spread = max((t.double()-o[k].double()).abs().max().item() for o in gather_objects(dict(learn.model.state_dict())) for k,t in learn.model.state_dict().items())
    rows = [dict(zip(learn.recorder.metric_names[1:-1], row)) for row in learn.recorder.values]
    return dict(losses=cb.seen, rows=rows, norm=params.norm().item(), mean=params.mean().item(), spread=spread)

def alternating(path): return trace(learner(path), lambda l: l.fit(2))

def shuffled(path):
    "Shuffled, after pretraining, and with averages over the batch in its loss."
    def fit(learn):
        learn.pretrain(1)
        learn.fit_one_cycle(2)
    return trace(learner(path, n=14, shuffle=True, seed=1, adv='relativistic'), fit)

def joint(path): return trace(learner(path, joint=True, ema=.9, adv='relativistic'), lambda l: l.fit(2))

def accumulated(path):
    from sr_fastai.accumulate import GANAccumulation
    return trace(learner(path, bs=2, n=8, cbs=GANAccumulation(2)), lambda l: l.fit(2))

def not_accumulated(path): return trace(learner(path, n=8), lambda l: l.fit(2))

same = dict(alternating=alternating, shuffled=shuffled, joint=joint)

def resumed(path):
    "A run with random augmentation, killed in its second epoch, and what its nets would be had it not been killed; equal bit by bit?"
    from fastai.vision.all import Callback
    from sr_fastai.checkpoint import Checkpoint
    class Noise(Callback):
        def before_batch(self):
            if self.training: self.learn.xb = tuple(x + .01*torch.rand_like(x) for x in self.xb)
    class Kill(Callback):
        def after_batch(self):
            if self.epoch==1 and self.iter==2: raise InterruptedError('killed')
    def run(folder, *cbs):
        learn = learner(path, n=16, shuffle=True, ema=.9)
        learn.add_cbs([Noise(), *cbs])
        with learn.no_bar(), learn.no_logging(), learn.distrib_ctx(): learn.fit(2, cbs=Checkpoint(path/folder, every=3))
        return learn.model.state_dict()
    whole = run('whole')
    try: run('killed', Kill())
    except InterruptedError: pass
    again = run('killed')
    return sorted(p.name for p in (path/'killed').iterdir()), all(torch.equal(whole[k], again[k]) for k in whole)

def close(a, b):
    "Numbers within 1e-5, whatever they stand in."
    if isinstance(a, dict): return a.keys()==b.keys() and all(close(a[k], b[k]) for k in a)
    if isinstance(a, list): return len(a)==len(b) and all(map(close, a, b))
    return a is b if a is None else math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-5)

def together(path):
    "All that two processes have to show, in one launch."
    from fastai.vision.all import Callback
    res = {k:f(path) for k,f in dict(**same, accumulated=accumulated).items()}
    res['resumed'] = resumed(path)
    learn = learner(path, norm='batch')
    class Ask(Callback):
        def after_batch(self):
            if not self.training or self.train_iter!=1: return
            res['draws'] = gather_objects(torch.rand(1).item())
            x = torch.arange(6.).view(2,3)[process_rank()].requires_grad_()
            (x-process_mean(x.mean())).pow(4).mean().backward() # as a relativistic loss has it
            res['grad'] = gather_objects(x.grad.tolist())
    learn.add_cb(Ask())
    res['batchnorm'] = trace(learn, lambda l: l.fit(1))
    # alone again: what one process does needs no other
    rank = int(os.environ['RANK'])
    learn.export_weights(path/f'{rank}.safetensors')
    learn.export(path/f'{rank}.pkl')
    if rank: return
    with learn.no_bar(): res['validate'] = list(learn.validate())
    (path/'together.json').write_text(json.dumps(res))

def launch(*cmd, what, path, n=2):
    env = {k:v for k,v in os.environ.items() if k not in ('RANK','WORLD_SIZE','LOCAL_RANK')}
    res = subprocess.run([sys.executable, '-W', 'ignore', '-m', *cmd, __file__, what, str(path)], env={**env, 'OMP_NUM_THREADS':'1'}, capture_output=True, text=True, timeout=240)
    assert res.returncode==0, res.stderr
    return json.loads((path/f'{what}.json').read_text())

@pytest.fixture(scope='module')
def two(tmp_path_factory):
    pytest.importorskip('accelerate')
    path = tmp_path_factory.mktemp('two')
    return launch('torch.distributed.run', '--standalone', '--nproc-per-node=2', what='together', path=path),path

@pytest.mark.parametrize('name', same)
def test_two_processes_train_as_one_with_the_same_batches(two, name, tmp_path):
    got,want = two[0][name],same[name](tmp_path)
    assert got['spread']==0. and close(got, want), (got,want)

def test_accumulated_gradients_are_averaged_once(two, tmp_path):
    got,want = two[0]['accumulated'],not_accumulated(tmp_path)
    assert got['spread']==0. and close([got[k] for k in ('norm','mean')], [want[k] for k in ('norm','mean')])

def test_a_mean_over_processes_has_the_gradient_of_one(two):
    x = torch.arange(6.).requires_grad_()
    (x-x.mean()).pow(4).mean().backward()
    # each process' own mean is over half of the values
    assert torch.tensor(two[0]['grad']).flatten()/2 == pytest.approx(x.grad)

def test_two_processes_go_on_as_if_never_killed(two):
    files,equal = two[0]['resumed']
    assert equal and 'last.pt' in files

def test_running_statistics_are_equal_and_random_numbers_are_not(two):
    assert two[0]['batchnorm']['spread']==0.
    assert len(set(two[0]['draws']))==2

def test_one_process_writes_and_works_alone_afterwards(two):
    res,path = two
    assert sorted(p.name for p in path.iterdir() if p.is_file())==['0.pkl','0.safetensors','together.json']
    row = [v for k,v in res['batchnorm']['rows'][-1].items() if 'train' not in k]
    assert close(res['validate'], row)

def launched(path):
    "What `accelerate launch` starts: a user's script."
    learn = learner(path)
    with learn.no_bar(), learn.no_logging(), learn.distrib_ctx(): learn.fit(2)
    if int(os.environ['RANK'])==0: (path/'launched.json').write_text(json.dumps([learn.recorder.named(row) for row in learn.recorder.values]))

def test_accelerate_launch(two, tmp_path):
    rows = launch('accelerate.commands.launch', '--multi_gpu', '--num_processes=2', '--num_machines=1', '--mixed_precision=no', '--dynamo_backend=no', what='launched', path=tmp_path)
    assert close(rows, two[0]['alternating']['rows'])

def lost(path):
    "Process 1 does not come to a batch within the others' patience, then it does: to find that they have gone."
    from fastai.vision.all import Callback
    class Late(Callback):
        def before_batch(self):
            if process_rank()==1 and self.train_iter==1: time.sleep(7)
    learn = learner(path, cbs=Late())
    (path/os.environ['RANK']).touch() # together from here on, however long the imports took
    while not all((path/r).exists() for r in '01'): time.sleep(.01)
    with learn.no_bar(), learn.no_logging(), learn.distrib_ctx(timeout=4): learn.fit(1)

def test_who_has_lost_the_others_ends_with_an_error(tmp_path):
    pytest.importorskip('accelerate')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        env = {**os.environ, 'MASTER_ADDR':'127.0.0.1', 'MASTER_PORT':str(s.getsockname()[1]), 'WORLD_SIZE':'2', 'OMP_NUM_THREADS':'1'}
    ps = [subprocess.Popen([sys.executable, '-W', 'ignore', __file__, 'lost', str(tmp_path)], env={**env, 'RANK':str(r), 'LOCAL_RANK':str(r)}, stderr=subprocess.PIPE, text=True) for r in (0,1)]
    try: errs = [p.communicate(timeout=150)[1] for p in ps]
    finally:
        for p in ps: p.kill()
    for p,err in zip(ps, errs):
        assert p.returncode not in (0,None) and "waited in vain for the others' gradients" in err, err

if __name__=='__main__':
    torch.set_num_threads(1)
    globals()[sys.argv[1]](Path(sys.argv[2]))
