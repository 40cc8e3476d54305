"W&B runs are read back from their files; W&B's failures are made."
import io, os, threading, time
import pytest, torch
from contextlib import redirect_stderr
from pathlib import Path
from PIL import Image
from fastai.vision.all import Callback, set_seed
import wandb
from wandb.sdk.lib import config_util
from sr_fastai.checkpoint import Checkpoint
from sr_fastai.data import div2k_dataloaders, untar_div2k
from sr_fastai.learner import gan_learner
from sr_fastai.models import Discriminator, Generator
from sr_fastai.sweep import agent_function
from sr_fastai.tracking import Track, learner_facts, read_run
from sr_fastai.train import TrainConfig, train

@pytest.fixture(scope='module')
def cache(tmp_path_factory): return tmp_path_factory.mktemp('cache')

@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    "No key, no network, no folder of the user's."
    for k in [k for k in os.environ if k.startswith('WANDB_')]: monkeypatch.delenv(k)
    for k in ('WANDB_DATA_DIR','WANDB_CACHE_DIR','WANDB_CONFIG_DIR'): monkeypatch.setenv(k, str(tmp_path/'home'))
    monkeypatch.setenv('NETRC', str(tmp_path/'nowhere'))
    yield
    # W&B keeps the settings that it began with
    if wandb.run is not None or 'WANDB_API_KEY' in os.environ: wandb.teardown()

def learner(cache, folder='.', joint=False, **kwargs):
    set_seed(3)
    dls = div2k_dataloaders(untar_div2k(sample=True), size=12, bs=4, crops=1, valid_size=24, cache=cache, seed=1)
    return gan_learner(dls, Generator(width=8, depth=1), Discriminator(width=8, depth=2, hidden=16), path=folder, joint=joint, **kwargs)

def fit(learn, n, track):
    with redirect_stderr(io.StringIO()) as said, learn.no_bar(), learn.no_logging(): learn.fit(n, cbs=track)
    return said.getvalue()

def runs_of(folder):
    "The runs in a folder, oldest first; W&B's service may still be writing the last."
    found = sorted(Path(folder).glob('wandb/offline-run-*'), key=lambda f: f.stat().st_mtime)
    for _ in range(100):
        runs = [read_run(f) for f in found]
        if all(r['exit'] is not None for r in runs): break
        time.sleep(.1)
    return found,runs

def run_of(folder):
    "The only run in a folder."
    (file,),(run,) = runs_of(folder)
    return file,run

def test_a_run_has_all_that_is_promised(tmp_path, cache):
    learn = learner(cache, tmp_path)
    track = Track(dict(command='sr_train --x', nested=dict(a=[1,None])), folder=tmp_path, every=1, n_images=3, name='first', group='all', tags=['t'])
    with learn.no_bar(), learn.no_logging(): learn.pretrain(1, cbs=track)
    fit(learn, 2, track)
    track.log_weights(learn.export_weights(tmp_path/'w.safetensors', data='sample'), 'best')
    (tmp_path/'c.pt').write_bytes(b'123')
    track.log_checkpoint(tmp_path/'c.pt')
    track.finish()
    folder,run = run_of(tmp_path)
    assert (run['exit'],run['name'],run['group'],run['project']) == (0,'first','all','sr_fastai')
    # config
    assert run['config']['command']=='sr_train --x' and run['config']['nested']==dict(a=[1,None])
    facts = run['config']['learner']
    assert facts['generator']['width']==8 and facts['critic']['depth']==2 and facts['loss']['adv']=='bce' and facts['loss']['w_adv']==1e-3
    assert facts['seed']==1 and facts['schedule']['epochs']==2 and set(facts['versions'])=={'python','torch','fastai','sr_fastai'} and 'commit' in facts
    assert facts['data']['bs']==4 and facts['data']['scale']==2 and len(facts['data']['fingerprint']['sha256'])==64
    # history: a row for each batch, the other net's values are not in it
    h = run['history']
    n = len(learn.dls.train)
    assert [r['_step'] for r in h]==list(range(3*n))
    gan = h[n:]
    assert all('pretrain/loss' in r for r in h[:n]) and not any('pretrain/loss' in r for r in gan)
    assert [('train/crit_loss' in r,'train/gen_loss' in r) for r in gan] == [(i%2==0,i%2==1) for i in range(2*n)]
    for r in gan:
        assert ({'train/d_real','train/d_fake'} <= r.keys()) if 'train/crit_loss' in r else ({'train/pixel','train/adv'} <= r.keys())
        assert r['lr/generator']==r['lr/critic']==1e-4
    for i in range(2):
        own = [r['train/gen_loss'] for r in gan[i*n:(i+1)*n] if 'train/gen_loss' in r]
        row = dict(zip(learn.recorder.metric_names[1:], learn.recorder.values[i]))
        last = gan[(i+1)*n-1]
        assert sum(own)/len(own)==pytest.approx(row['train_loss'], rel=1e-5)
        assert all(last[k]==pytest.approx(row[k], rel=1e-6) for k in ('psnr','ssim','valid_loss','crit_valid_loss','d_real'))
        assert last['epoch']==i+2 and [r for r in gan[i*n:(i+1)*n] if 'psnr' in r]==[last]
    assert all(h[i*n-1]['images_per_s']>0 for i in (1,2,3))
    best = max(r['psnr'] for r in h if 'psnr' in r)
    assert run['summary']['best_psnr']==pytest.approx(best) and run['summary']['best_ssim']>0
    # pictures
    for r in (r for r in h if 'images' in r):
        assert r['images']['count']==3 and all('LR | SR' in c and 'dB | HR' in c for c in r['images']['captions'])
        for f in r['images']['filenames']: assert Image.open(folder/'files'/f).size==(3*(48+6)+6,48+20+20+6)
    assert sum('images' in r for r in h)==3 and sum('losses' in r for r in h)==1
    assert Image.open(folder/'files'/h[-1]['losses']['path']).width>600
    # artifacts
    data,weights,ckpt = run['artifacts']
    assert (data['type'],data['files'])==('dataset',['fingerprint.json']) and data['metadata']['sha256']==facts['data']['fingerprint']['sha256']
    assert (weights['type'],sorted(weights['files']))==('model',['README.md','w.safetensors']) and {'latest','best'}<=set(weights['aliases'])
    assert weights['metadata']['data']==data['name'] and weights['metadata']['card']['config']['width']==8
    assert (ckpt['type'],ckpt['files'],ckpt['metadata']['data'])==('checkpoint',['c.pt'],data['name'])
    # and nothing that was not asked for
    assert all(f.startswith('media/') for f in run['files'])
    assert {p.parts[0] for p in (p.relative_to(folder/'files') for p in (folder/'files').rglob('*') if p.is_file())}=={'media'}

def test_joint_training_has_both_nets_in_each_row(tmp_path, cache):
    learn = learner(cache, joint=True)
    track = Track(folder=tmp_path, n_images=0)
    fit(learn, 1, track)
    track.finish()
    h = run_of(tmp_path)[1]['history']
    assert all({'train/gen_loss','train/crit_loss','train/d_real','train/pixel'}<=r.keys() for r in h) and not any('images' in r for r in h)

def test_tracking_changes_nothing(tmp_path, cache):
    def weights(track):
        learn = learner(cache)
        fit(learn, 2, track)
        return learn.model.state_dict()
    track = Track(folder=tmp_path)
    a,b = weights(None),weights(track)
    track.finish()
    assert all(torch.equal(a[k], b[k]) for k in a)

def test_without_a_key_it_is_offline_and_says_so_once(tmp_path, cache):
    learn,track = learner(cache),Track(folder=tmp_path)
    said = fit(learn, 1, track)+fit(learn, 1, track)
    track.finish()
    assert said.count('W&B:')==1 and 'no key' in said and 'wandb sync' in said
    assert run_of(tmp_path)[1]['summary']['epoch']==2

def test_a_server_that_is_not_there(tmp_path, cache, monkeypatch):
    monkeypatch.setenv('WANDB_API_KEY', 'a'*40)
    monkeypatch.setenv('WANDB_BASE_URL', 'http://127.0.0.1:9')
    wandb.teardown()
    learn,track = learner(cache),Track(folder=tmp_path, timeout=2)
    t = time.perf_counter()
    said = fit(learn, 1, track)
    track.finish()
    assert time.perf_counter()-t < 30
    assert said.count('not to be reached')==1 and 'psnr' in run_of(tmp_path)[1]['summary']

@pytest.mark.parametrize('what,error', [('log',OSError(28, 'No space left on device')), ('log',BrokenPipeError('the service is gone')), ('define_metric',RuntimeError('no'))])
def test_failures_stop_tracking_and_not_training(tmp_path, cache, monkeypatch, what, error):
    def fail(*args, **kwargs): raise error
    monkeypatch.setattr(wandb.Run, what, fail)
    learn,track = learner(cache),Track(folder=tmp_path, every=1)
    said = fit(learn, 2, track)
    with redirect_stderr(io.StringIO()) as more: track.finish()
    said += more.getvalue()
    assert len(learn.recorder.values)==2 and said.count('stopped, the training goes on')==1 and str(error) in said
    assert wandb.run is None # the next run is a new one

def test_a_start_that_fails(tmp_path, cache, monkeypatch):
    def fail(*args, **kwargs): raise OSError('disk full')
    monkeypatch.setattr(wandb, 'init', fail)
    learn,track = learner(cache),Track(folder=tmp_path, mode='offline')
    said = fit(learn, 1, track)
    track.finish()
    assert 'disk full' in said and len(learn.recorder.values)==1

def test_a_wandb_that_hangs_holds_nothing_up(tmp_path, cache, monkeypatch):
    go,log = threading.Event(),wandb.Run.log
    monkeypatch.setattr(wandb.Run, 'log', lambda self, *args, **kwargs: go.wait() and log(self, *args, **kwargs))
    learn,track = learner(cache),Track(folder=tmp_path, every=1, timeout=.3)
    fit(learn, 2, track)
    thread = track.call.thread
    with redirect_stderr(io.StringIO()) as said: track.finish()
    assert len(learn.recorder.values)==2 and 'did not finish within' in said.getvalue()
    go.set()
    thread.join(20)
    end = time.time()+20 # W&B's own process writes the file, and may be behind
    while 'psnr' not in run_of(tmp_path)[1]['summary'] and time.time()<end: time.sleep(.1)
    assert not thread.is_alive() and 'psnr' in run_of(tmp_path)[1]['summary'] # late, and whole

def test_a_run_that_ended_early_goes_on_under_its_id(tmp_path, cache):
    learn = learner(cache)
    track = Track(folder=tmp_path)
    fit(learn, 1, track)
    state = track.state_dict()
    track.finish(ok=False)
    again = Track(folder=tmp_path)
    again.load_state_dict(state)
    fit(learn, 1, again)
    again.finish()
    a,b = runs_of(tmp_path)[1]
    assert a['id']==b['id'] and a['exit']==1 and b['exit']==0
    assert b['history'][0]['_step']==a['history'][-1]['_step']+1 and b['history'][-1]['epoch']==2
    third = Track(folder=tmp_path)
    fit(learn, 1, third)
    assert third.wb.id!=a['id']
    third.finish()

def test_an_interrupted_training_says_so_and_keeps_its_id(tmp_path):
    kw = dict(data='sample', size=12, bs=4, crops=1, epochs=1, width=8, depth=1, critic_width=8, critic_depth=2, precision='fp32', device='cpu', project='p', out=str(tmp_path))
    class Interrupt(Callback):
        def after_batch(self): raise KeyboardInterrupt
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt): train(TrainConfig(**kw), Interrupt())
    runs = runs_of(tmp_path)[1]
    assert [r['exit'] for r in runs]==[1,1] and runs[0]['id']==runs[1]['id']

def test_a_resumed_run_lacks_no_row(tmp_path, cache):
    "Rows that are not delivered yet, when a checkpoint is written, belong to it: here all of the epoch's, which ended in its validation."
    class Interrupt(Callback):
        def before_validate(self): raise KeyboardInterrupt
    track = Track(folder=tmp_path)
    with pytest.raises(KeyboardInterrupt): fit(learner(cache), 2, [track, Checkpoint(tmp_path/'c', every=2), Interrupt()])
    track.finish(False)
    again = Track(folder=tmp_path)
    fit(learner(cache), 2, [again, Checkpoint(tmp_path/'c', every=2)])
    again.finish()
    runs = runs_of(tmp_path)[1]
    history = [row for r in runs for row in r['history']]
    assert [row['_step'] for row in history]==[0,1,2,3] and [row['epoch'] for row in history if 'psnr' in row]==[1,2]

def test_facts_name_a_degradation_that_is_drawn_anew(cache):
    from sr_fastai.data import div2k_dataloaders
    from sr_fastai.degrade import photo
    learn = learner(cache, percep=None)
    learn.dls = div2k_dataloaders(learn.dls.path, size=8, bs=2, track=photo(2), fresh=True, cache=cache)
    assert {o['kind']:o.get('how') for o in learner_facts(learn)['data']['item_tfms']}['PairedDegrade']==repr(photo(2))

def test_facts_through_a_distributed_loader(cache):
    pytest.importorskip('accelerate')
    from sr_fastai.distributed import PairDistributedDL
    learn = learner(cache, percep=None)
    loaders = learn.dls.loaders
    plain = learner_facts(learn)['data']
    learn.dls.loaders = [PairDistributedDL(dl, rank=0, world_size=1) for dl in loaders]
    assert learner_facts(learn)['data']==plain and plain['fingerprint']['sha256']

def test_a_training_goes_on_with_tracking_or_without(tmp_path, cache):
    for n,track in ((1,[]),(2,[Track(folder=tmp_path)]),(3,[])):
        learn = learner(cache)
        fit(learn, n, [*track, Checkpoint(tmp_path/'checkpoints')])
        assert len(learn.recorder.values)==n
        for t in track: t.finish()

def test_the_function_of_an_agent(tmp_path, monkeypatch):
    "W&B's agent writes the run's values to a file and names it; `wandb.config` has them."
    monkeypatch.chdir(tmp_path)
    file = tmp_path/'config.yaml'
    config_util.save_config_file_from_dict(str(file), dict(lr=dict(value=2e-4), critic=dict(value=dict(width=8, depth=2))))
    for k,v in dict(WANDB_MODE='offline', WANDB_SWEEP_ID='s1', WANDB_RUN_ID='r1', WANDB_SWEEP_PARAM_PATH=str(file)).items(): monkeypatch.setenv(k, v)
    wandb.teardown()
    tracks,start = [],Track.start
    monkeypatch.setattr(Track, 'start', lambda self: tracks.append(self) or start(self))
    learn = agent_function(data='sample', size=12, bs=4, crops=1, epochs=1, width=8, depth=1, precision='fp32', out='here')()
    wandb.finish()
    assert len(set(tracks))==1 and (tmp_path/'here'/'weights.safetensors').exists()
    run = run_of(tmp_path)[1]
    assert learn.opt.generator.hypers[0]['lr']==2e-4 and learn.model.critic.width==8
    assert run['id']=='r1' and run['config']['lr']==2e-4 and run['config']['critic']==dict(width=8, depth=2) and 'psnr' in run['history'][-1]

def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="mode must be"): Track(mode='on')
    with pytest.raises(FileNotFoundError, match='no such file'): Track(folder=tmp_path).log_weights(tmp_path/'none.safetensors')
