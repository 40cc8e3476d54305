"Killed runs go on as if they had not been; what is damaged or of another run is told apart; the best epoch is kept."
import math, multiprocessing as mp, os, pickle, random, shutil, signal, sys, time, warnings
from pathlib import Path
import pytest, torch
from fastai.callback.all import EarlyStoppingCallback
from safetensors.torch import load_file
from fastai.vision.all import Callback, L, Learner, noop, set_seed
from sr_fastai.checkpoint import Checkpoint, CheckpointError, DamagedError, read_checkpoint
from sr_fastai.learner import gan_learner
from sr_fastai.metrics import psnr
from sr_fastai.models import Discriminator, Generator
from sr_fastai.recorder import ImageMetric
from sr_fastai.weights import load_weights
from test_learner import tiny_dls
sys.path.insert(0, str(Path(__file__).parent.parent/'benchmarks'))
import kill_train

# ---- real processes, really killed ----

@pytest.fixture(scope='module')
def forks():
    "Processes that are forked from one that has imported everything, so that each starts at once."
    old,os.environ['OMP_NUM_THREADS'] = os.environ.get('OMP_NUM_THREADS'),'1'
    ctx = mp.get_context('forkserver')
    ctx.set_forkserver_preload(['sr_fastai.checkpoint','sr_fastai.data','sr_fastai.learner','pytest'])
    yield ctx
    os.environ.pop('OMP_NUM_THREADS') if old is None else os.environ.update(OMP_NUM_THREADS=old)

def start(forks, folder, mode, dies=None):
    folder.mkdir(exist_ok=True)
    (folder/'started').unlink(missing_ok=True)
    proc = forks.Process(target=child, args=(mode, folder, dies))
    proc.start()
    return proc

def child(mode, folder, dies=None):
    warnings.simplefilter('ignore')
    sys.stdout = open(os.devnull, 'w')
    if dies: die_in(*dies)
    kill_train.run(mode, folder, epochs=2)

def ends(proc): proc.join(120); return proc.exitcode

@pytest.fixture(scope='module')
def whole(forks, tmp_path_factory):
    "A run that was not killed, and the seconds that it trained."
    folder = tmp_path_factory.mktemp('runs')/'whole'
    proc = start(forks, folder, 'bf16')
    kill_train.wait(SimpleProc(proc), folder)
    begun = time.time()
    assert ends(proc)==0
    return folder,time.time()-begun

class SimpleProc:
    def __init__(self, proc): self.poll = lambda: proc.exitcode

def test_three_kills_at_random_moments(forks, whole, tmp_path):
    folder,(reference,took),rng = tmp_path/'run',whole,random.Random()
    for i in range(3):
        proc = start(forks, folder, 'bf16')
        kill_train.wait(SimpleProc(proc), folder)
        proc.join(rng.uniform(0, took*.6))
        proc.kill()
        if ends(proc)==0: break # it was done before
        assert proc.exitcode==-signal.SIGKILL
    assert ends(start(forks, folder, 'bf16'))==0
    assert kill_train.same(reference, folder)

def die_in(func, n):
    "Kill this process in the `n`-th call of `func`, which is half done then."
    calls = 0
    def die(real, half):
        def f(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls<n: return real(*args, **kwargs)
            half(*args)
            os.kill(os.getpid(), signal.SIGKILL)
        return f
    def half_save(sd, file):
        real_save(sd, file)
        os.truncate(file, os.path.getsize(file)//2)
    real_save = torch.save
    if func=='save': torch.save = die(torch.save, half_save)
    else: os.replace = die(os.replace, noop)

# the seventh checkpoint is the first after an epoch; it replaces best.safetensors, best.pt, previous.pt by last.pt, and last.pt by itself
@pytest.mark.parametrize('dies', [('save',1),('save',7),*(('replace',n) for n in range(12, 16))], ids=str)
def test_killed_in_a_write(forks, whole, tmp_path, dies):
    folder = tmp_path/'run'
    assert ends(start(forks, folder, 'bf16', dies))==-signal.SIGKILL
    assert ends(start(forks, folder, 'bf16'))==0
    assert kill_train.same(whole[0], folder)
    for phase in ('pretrain','gan'):
        a,b = (load_file(o/phase/'best.safetensors') for o in (folder,whole[0]))
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert not [f for f in folder.rglob('.*') if f.is_file()] # nothing half-written stays

# ---- within one process ----

def tiny(n=10, width=4, cbs=None, lr=1e-3, **kwargs):
    set_seed(0)
    learn = gan_learner(tiny_dls(n), Generator(2, width=width, depth=1), Discriminator(width=4, depth=2, pool=2, hidden=8), lr=lr, cbs=cbs, **kwargs)
    learn.logger,learn.create_mbar = noop,False
    return learn

def fit(learn, epochs, *cbs, how='fit', **kwargs):
    with learn.no_bar(): getattr(learn, how)(epochs, cbs=L(cbs), **kwargs)
    return learn

def equal(a, b): return all(torch.equal(v, b.model.state_dict()[k]) for k,v in a.model.state_dict().items())

class Count(Callback):
    def before_fit(self): self.epochs,self.batches = 0,0
    def before_epoch(self): self.epochs += 1
    def before_batch(self): self.batches += self.training

class Die(Callback):
    "Ends everything at a batch, as the interrupt of a notebook does."
    def __init__(self, at): self.at = at
    def before_backward(self):
        if self.train_iter==self.at: raise KeyboardInterrupt

def test_finished_run_is_not_trained_again(tmp_path):
    a = fit(tiny(), 2, Checkpoint(tmp_path))
    count,b = Count(),tiny()
    fit(b, 2, Checkpoint(tmp_path), count)
    assert (count.epochs,count.batches)==(0,0) and equal(a, b)
    assert b.recorder.values==a.recorder.values and len(b.recorder.losses)==len(a.recorder.losses)
    # the random state is that after training: what follows is the same too
    assert equal(fit(a, 1), fit(b, 1))

def test_interrupted_cell_runs_again(tmp_path):
    whole = fit(tiny(), 2, how='fit_one_cycle')
    learn = tiny()
    with pytest.raises(KeyboardInterrupt): fit(learn, 2, Checkpoint(tmp_path, every=1), Die(7), how='fit_one_cycle')
    assert equal(fit(learn, 2, Checkpoint(tmp_path, every=1), how='fit_one_cycle'), whole)
    assert 'all_batches' not in vars(learn)

def test_more_epochs_without_a_schedule(tmp_path):
    fit(tiny(), 1, Checkpoint(tmp_path/'a'))
    assert equal(fit(tiny(), 3, Checkpoint(tmp_path/'a')), fit(tiny(), 3))
    with pytest.raises(CheckpointError, match='another run: epochs is 3 there and 2 here'): fit(tiny(), 2, Checkpoint(tmp_path/'a'))
    fit(tiny(), 1, Checkpoint(tmp_path/'b'), how='fit_one_cycle')
    with pytest.raises(CheckpointError, match='epochs is 1 there and 2 here'): fit(tiny(), 2, Checkpoint(tmp_path/'b'), how='fit_one_cycle')

def test_other_metrics_and_another_monitor(tmp_path):
    "Rows keep their columns, and what was best by one is not compared with another."
    def more(n, names, monitor): return fit(tiny(metrics=[ImageMetric(psnr, o) for o in names]), n, Checkpoint(tmp_path, monitor=monitor))
    first = more(1, ['a','b'], 'psnr')
    psnrs = first.recorder.values[0][-2:]
    second = more(2, ['c','a'], 'd_real')
    rows = [second.recorder.named(row) for row in second.recorder.values]
    assert (rows[0]['a'],rows[0]['c'])==(psnrs[0],None) and rows[0]['psnr']==first.recorder.named(first.recorder.values[0])['psnr'] and rows[1]['c']==rows[1]['a']
    assert read_checkpoint(tmp_path/'last.pt')['best']==dict(column='d_real', value=rows[1]['d_real'], epoch=1)
    third = more(3, [], 'd_real')
    assert [len(row) for row in third.recorder.values]==[len(first.recorder.values[0])-2]*3

def test_an_epoch_without_validation(tmp_path):
    from fastai.callback.all import ShortEpochCallback
    learn = fit(tiny(), 1, Checkpoint(tmp_path, monitor='psnr'), ShortEpochCallback(.3))
    assert len(learn.recorder.values[0])<len(learn.recorder.metric_names)-2
    assert read_checkpoint(tmp_path/'last.pt')['best'] is None

def test_early_stop_is_an_end(tmp_path):
    def stop(): return EarlyStoppingCallback('psnr', min_delta=100., patience=1) # no epoch after the first is that much better
    fit(tiny(), 5, Checkpoint(tmp_path), stop())
    assert read_checkpoint(tmp_path/'last.pt')['epoch']==2
    count = Count()
    fit(tiny(), 5, Checkpoint(tmp_path), stop(), count)
    assert count.batches==0

def test_predictions_are_no_fits(tmp_path):
    class Look(Callback):
        def after_train(self): self.learn.get_preds(inner=True) # as fastai's `FetchPredsCallback`
    learn = fit(tiny(cbs=Checkpoint(tmp_path)), 2, Look())
    assert read_checkpoint(tmp_path/'last.pt')['epoch']==2
    before,written = {k:v.clone() for k,v in learn.model.state_dict().items()},(tmp_path/'last.pt').stat()
    learn.model.generator.first.bias.data += 1
    with learn.no_bar(): learn.validate(); learn.get_preds()
    assert (tmp_path/'last.pt').stat()==written
    assert not torch.equal(learn.model.generator.first.bias, before['generator.first.bias']) # nothing was loaded either

@pytest.mark.parametrize('change,says', [
    (dict(width=8), 'another architecture: generator'), (dict(n=12), 'batches in an epoch is 5 there and 6 here'), (dict(lr=1e-2), 'lr is .*0.001.* there and .*0.01.* here')], ids=['architecture','data','lr'])
def test_another_run_is_refused_before_the_first_batch(tmp_path, change, says):
    fit(tiny(), 1, Checkpoint(tmp_path))
    before = {f.name:f.read_bytes() for f in tmp_path.iterdir()}
    count,learn = Count(),tiny(**change)
    with pytest.raises(CheckpointError, match=says) as e: fit(learn, 2, Checkpoint(tmp_path), count)
    assert '\n' not in str(e.value) and str(tmp_path/'last.pt') in str(e.value)
    assert count.batches==0 and before=={f.name:f.read_bytes() for f in tmp_path.iterdir()}

def test_config_precision_and_callbacks_belong_to_the_run(tmp_path):
    fit(tiny(), 1, Checkpoint(tmp_path, config=dict(w_adv=.1)))
    with pytest.raises(CheckpointError, match='w_adv is 0.1 there and 0.2 here'): fit(tiny(), 2, Checkpoint(tmp_path, config=dict(w_adv=.2)))
    with pytest.raises(CheckpointError, match='precision is "fp32" there and "bf16" here'): fit(tiny().to_bf16(), 2, Checkpoint(tmp_path, config=dict(w_adv=.1)))
    with pytest.raises(CheckpointError, match='only here is early_stopping'): fit(tiny(), 2, Checkpoint(tmp_path, config=dict(w_adv=.1)), EarlyStoppingCallback('psnr', patience=9))

@pytest.fixture
def two(tmp_path):
    fit(tiny(), 2, Checkpoint(tmp_path))
    return tmp_path

def flat(o, at=''):
    if isinstance(o, dict): return {k:v for n,x in o.items() for k,v in flat(x, f'{at}.{n}').items()}
    if isinstance(o, (list,tuple)): return flat(dict(enumerate(o)), at)
    return {at:o.tolist() if isinstance(o, torch.Tensor) else o}

def test_no_damage_goes_unseen(two):
    file,rng = two/'last.pt',random.Random(0)
    data,good = file.read_bytes(),repr(flat(read_checkpoint(two/'last.pt')))
    seen = 0
    for i in range(80):
        at = rng.randrange(len(data))
        file.write_bytes(data[:at] if i<20 else data[:at]+bytes([data[at]^(1<<rng.randrange(8))])+data[at+1:])
        try: assert repr(flat(read_checkpoint(file)))==good # in padding or a date
        except DamagedError: seen += 1
    assert seen>20

def test_damaged_falls_back_once_told(two):
    (two/'last.pt').write_bytes((two/'last.pt').read_bytes()[:-1000])
    count = Count()
    with pytest.warns(UserWarning) as w: learn = fit(tiny(), 2, Checkpoint(two), count)
    told = [str(o.message) for o in w if 'previous.pt' in str(o.message)]
    assert len(told)==1 and 'last.pt is damaged' in told[0]
    assert count.epochs==1 and equal(learn, fit(tiny(), 2))
    for f in ('last.pt','previous.pt'): (two/f).write_bytes(b'')
    with pytest.raises(DamagedError, match='last.pt is damaged'): fit(tiny(), 2, Checkpoint(two))

def test_nothing_is_unpickled(two):
    class Evil:
        def __reduce__(self): return os.mkdir, (str(two/'run'),)
    for save in (lambda o,f: torch.save(o, f), lambda o,f: f.write_bytes(pickle.dumps(o))):
        save(dict(format='sr_fastai.checkpoint', version=1, model=Evil()), two/'last.pt')
        with pytest.raises(DamagedError): read_checkpoint(two/'last.pt')
        assert not (two/'run').exists()

def test_other_files_and_versions(two):
    sd = torch.load(two/'last.pt', weights_only=True)
    torch.save(dict(sd, version=99), two/'last.pt')
    with pytest.raises(CheckpointError, match='format version 99'): fit(tiny(), 2, Checkpoint(two))
    torch.save(dict(model=sd['model']), two/'last.pt')
    with pytest.raises(CheckpointError, match='no checkpoint of'): fit(tiny(), 2, Checkpoint(two))

class Fake(Callback):
    "Writes other values in a column than those measured."
    order = 55 # after the recorder
    def __init__(self, name, values): self.column,self.values = name,values
    def after_epoch(self): self.learn.final_record[self.recorder.metric_names.index(self.column)-1] = self.values[self.epoch]

@pytest.mark.parametrize('name,values,mode,best', [('psnr',[1,3,2],None,1), ('valid_loss',[3,1,2],None,1), ('ssim',[math.nan,.2,.1],None,1), ('psnr',[math.nan]*3,None,None),
                                                   ('psnr',[None,1,1],None,1), ('d_fake',[2,3,1],'min',2), ('crit_valid_loss',[2,3,1],None,2)])
def test_best_epoch(tmp_path, name, values, mode, best):
    fit(tiny(), 3, Checkpoint(tmp_path, monitor=name, mode=mode), Fake(name, values))
    assert (tmp_path/'best.pt').exists()==(best is not None)
    if best is None: return
    sd,weights = read_checkpoint(tmp_path/'best.pt'),load_weights(tmp_path/'best.safetensors').state_dict()
    assert (sd['epoch'],sd['best'])==(best+1, dict(column=name, value=values[best], epoch=best))
    assert all(torch.equal(v, sd['model'][f'generator.{k}']) for k,v in weights.items())
    assert read_checkpoint(tmp_path/'last.pt')['best']==sd['best']

@pytest.mark.parametrize('name,least', [('psnr',False),('ssim',False),('lpips',True),('lpips_vgg',True),('valid_loss',True),('mse',True),('gen_mse',True),('error_rate',True),('d_real',False)])
def test_direction_goes_by_the_name(name, least):
    cb = Checkpoint('x', monitor=name)
    cb.learn = Learner(tiny_dls(), torch.nn.Conv2d(3,3,1), loss_func=noop)
    cb.learn.recorder.metric_names = L('epoch', name, 'time')
    cb._find_column()
    assert cb.sign==(-1 if least else 1)

def test_settings_that_make_no_sense(tmp_path):
    with pytest.raises(ValueError, match='every is a number of batches'): Checkpoint(tmp_path, every=0)
    with pytest.raises(ValueError, match="mode is 'min' or 'max'"): Checkpoint(tmp_path, mode='less')
    count = Count()
    with pytest.raises(ValueError, match="'lpips', which is not recorded; there are .*psnr, ssim"): fit(tiny(), 1, Checkpoint(tmp_path, monitor='lpips'), count)
    assert count.batches==0

def test_an_ordinary_learner_of_any_net(tmp_path):
    def make():
        set_seed(0)
        learn = Learner(tiny_dls(), torch.nn.Sequential(torch.nn.Upsample(scale_factor=2), torch.nn.Conv2d(3,3,1), torch.nn.BatchNorm2d(3), torch.nn.Dropout(.5)), torch.nn.functional.mse_loss)
        learn.logger,learn.create_mbar = noop,False
        return learn
    learn = make()
    with learn.no_bar(), learn.added_cbs(Checkpoint(tmp_path)): learn.lr_find(num_it=7, show_plot=False)
    assert not list(tmp_path.iterdir()) # looking for a rate is no fit
    with pytest.raises(KeyboardInterrupt): fit(make(), 2, Checkpoint(tmp_path, every=2), Die(8))
    assert equal(fit(make(), 2, Checkpoint(tmp_path, every=2)), fit(make(), 2))
    assert not (tmp_path/'best.safetensors').exists() and read_checkpoint(tmp_path/'best.pt')['best']['column']=='valid_loss'

def test_full_disk(tmp_path, monkeypatch):
    fit(tiny(), 1, Checkpoint(tmp_path))
    before = (tmp_path/'last.pt').read_bytes()
    def full(sd, f): Path(f).write_bytes(b'half'); raise RuntimeError('file write failed: No space left on device')
    monkeypatch.setattr(torch, 'save', full)
    with pytest.raises(CheckpointError, match="last.pt can't be written: .*No space left"): fit(tiny(), 2, Checkpoint(tmp_path))
    assert (tmp_path/'last.pt').read_bytes()==before and not list(tmp_path.glob('.*'))

def test_an_option_that_is_newer_than_the_run(tmp_path):
    "A checkpoint goes on under a version with more options, which it trained without: at their defaults."
    defaults = dict(w_adv=1, flips=True)
    fit(tiny(), 1, Checkpoint(tmp_path, config=dict(w_adv=.1)))
    fit(tiny(), 2, Checkpoint(tmp_path, config=dict(w_adv=.1, flips=True), defaults=defaults))
    with pytest.raises(CheckpointError, match='flips is true there and false here'): fit(tiny(), 3, Checkpoint(tmp_path, config=dict(w_adv=.1, flips=False), defaults=defaults))

def test_goes_on_late_with_a_progress_bar(tmp_path, capsys):
    "fastprogress has no state of its own before a bar's first value, which was not that of the first epoch."
    def run(n):
        learn = gan_learner(tiny_dls(4), Generator(width=4, depth=1), Discriminator(width=4, depth=2, pool=2, hidden=8), path=tmp_path)
        learn.fit(n, cbs=Checkpoint(tmp_path))
        return learn
    for n in (4,6): run(n)
    assert '\n5 ' in capsys.readouterr().out

@pytest.mark.parametrize('column', ['valid_pixel','train_adv','valid_percep','train_r1','whole_lpips','valid_loss'])
def test_less_is_better_of_what_a_loss_is_made_of(column, tmp_path):
    cb = Checkpoint(tmp_path, monitor=column)
    cb.learn = type('L', (), dict(recorder=type('R', (), dict(metric_names=['epoch',column]))))()
    cb._find_column()
    assert cb.sign==-1

def test_a_generator_of_others_is_checkpointed(tmp_path):
    "Its state alone is kept: weights are those of a `Generator`."
    class Own(torch.nn.Module):
        def __init__(self): super().__init__(); self.net = Generator(2, width=4, depth=0)
        def forward(self, x): return self.net(x)
    learn = gan_learner(tiny_dls(), Own(), Discriminator(width=4, depth=2, pool=2, hidden=8), path=tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=Checkpoint(tmp_path/'c'))
    assert (tmp_path/'c'/'best.pt').exists() and not (tmp_path/'c'/'best.safetensors').exists()
