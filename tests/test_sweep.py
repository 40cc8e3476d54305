"The same sweep.yaml, as W&B's agent runs it and as this machine does; killed, and wrong in every line."
import errno, html, math, multiprocessing, os, re, shlex, subprocess, sys, time
from collections import Counter
from pathlib import Path
import filelock, numpy as np, pytest, yaml
from scipy import stats
import wandb
from wandb.sdk.launch.sweeps import utils as sweep_utils
from wandb.wandb_agent import Agent
from sr_fastai.sweep import ReportMetric, Sweep, SweepError, _bands, _File, _gpu, _parameter, sr_sweep, survives
from sr_fastai.tracking import read_run
from sr_fastai.train import TrainConfig, config_of_args

root = Path(__file__).parent.parent

@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    for k in [k for k in os.environ if k.startswith('WANDB_')]: monkeypatch.delenv(k)
    for k in ('WANDB_DATA_DIR','WANDB_CACHE_DIR','WANDB_CONFIG_DIR'): monkeypatch.setenv(k, str(tmp_path/'home'))
    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.chdir(tmp_path)
    wandb.teardown() # W&B keeps the settings that it began with

HEAD = 'method: {m}\nmetric: {name: psnr, goal: maximize}\nrun_cap: 4\n'
TINY = dict(data='sample', size=12, bs=4, crops=1, epochs=1, depth=1, width=8, ema=None, precision='fp32', critic_width=8, critic_depth=2)

def parameter(**spec): return _parameter(_File({}), (), ('x',), spec, False)

@pytest.mark.parametrize('spec,dist', [
    (dict(distribution='uniform', min=-2, max=3),                             stats.uniform(-2, 5)),
    (dict(min=.5, max=3),                                                     stats.uniform(.5, 2.5)),
    (dict(distribution='log_uniform', min=-3, max=1),                         stats.loguniform(math.exp(-3), math.e)),
    (dict(distribution='log_uniform_values', min=1e-4, max=.1),               stats.loguniform(1e-4, .1)),
    (dict(distribution='inv_log_uniform', min=1, max=4),                      stats.loguniform(math.exp(-4), math.exp(-1))),
    (dict(distribution='inv_log_uniform_values', min=1e-4, max=.1),           stats.loguniform(1e-4, .1)),
    (dict(distribution='normal', mu=2, sigma=3),                              stats.norm(2, 3)),
    (dict(distribution='log_normal', mu=1, sigma=.5),                         stats.lognorm(.5, scale=math.e))])
def test_distributions_are_scipys(spec, dist):
    p,rng = parameter(**spec),np.random.default_rng(0)
    assert stats.kstest([p.at(p.draw(rng)) for _ in range(4000)], dist.cdf).pvalue > .001

@pytest.mark.parametrize('spec,ref', [
    (dict(distribution='q_uniform', min=0, max=10, q=2.5),                    lambda r: r.uniform(0, 10)),
    (dict(distribution='q_log_uniform', min=0, max=3, q=2),                   lambda r: math.exp(r.uniform(0, 3))),
    (dict(distribution='q_log_uniform_values', min=8, max=128, q=8),          lambda r: math.exp(r.uniform(math.log(8), math.log(128)))),
    (dict(distribution='q_normal', mu=0, sigma=4, q=1),                       lambda r: r.normal(0, 4)),
    (dict(distribution='q_log_normal', mu=1, sigma=1, q=.5),                  lambda r: math.exp(r.normal(1, 1))),
    (dict(distribution='int_uniform', min=2, max=5),                          lambda r: r.integers(2, 6)),
    (dict(values=['a','b','c'], probabilities=[.7,.2,.1]),                    lambda r: r.choice(['a','b','c'], p=[.7,.2,.1]))])
def test_rounded_distributions_are_as_documented(spec, ref):
    "`round(X/q)*q`, by W&B's documentation: as often as in a plain simulation."
    p,rng,q = parameter(**spec),np.random.default_rng(1),spec.get('q')
    n = 6000
    ours = [p.at(p.draw(rng)) for _ in range(n)]
    theirs = [round(x/q)*q if q else x for x in (ref(rng) for _ in range(n))]
    a,b = Counter(ours),Counter(theirs)
    for k in a|b: assert abs(a[k]-b[k]) < 5*math.sqrt(a[k]+b[k]+1)
    if q and float(q).is_integer(): assert all(isinstance(o, int) for o in ours)

def test_hyperband_brackets():
    "The two examples of W&B's documentation."
    f = _File({})
    assert _bands(f, dict(type='hyperband', min_iter=3))[1][:4] == [3,9,27,81]
    assert _bands(f, dict(type='hyperband', max_iter=27, s=2))[1] == [3,9]

@pytest.mark.parametrize('goal', ['maximize','minimize'])
def test_hyperband_keeps_the_best_share(goal):
    "Of n runs that reach a bracket together about one in eta goes on, and the best does."
    rng = np.random.default_rng(2)
    hs = [list(rng.normal(size=3)) for _ in range(30)]
    on = [i for i,h in enumerate(hs) if survives(3, h, hs[:i]+hs[i+1:], [3], 3, goal)]
    best = (max if goal=='maximize' else min)
    assert len(on)==10 and hs.index(best(hs, key=best)) in on

BAD = [
    ('method: grid\nmetric: {name: psnr\nparameters: {}', r'bad.yaml line 3: this is no YAML'),
    ('- a\n- b', 'keys such as method'),
    ('metric: {name: psnr}\nparameters: {lr: {value: 1}}', 'there is no method'),
    ('method: anneal\nmetric: {name: psnr}\nparameters: {lr: {value: 1}}', 'line 1: method: should be grid, random or bayes'),
    (HEAD+'parameters:\n  wdith: {values: [8, 16]}', r"line 5: parameters.wdith: 8: there is no option 'wdith'; did you mean 'width'"),
    (HEAD+'parameters:\n  lr: {value: 1e-4}\n  width:\n    values: [8, 0]', 'line 6: parameters.width: 0: width'),
    (HEAD+'parameters:\n  data: {value: sample}\n  learning_rate: {value: 1.0e-4}', "line 6: parameters.learning_rate: 0.0001: there is no option 'learning_rate'"),
    (HEAD+'parameters:\n  lr: {min: 0.0, max: 1.0}', 'line 5: parameters.lr: .*: lr: .*greater than 0'),
    (HEAD+'parameters:\n  critic:\n    parameters:\n      norm: {values: [spectral, weight]}', "line 7: parameters.critic.parameters.norm: 'weight': critic_norm"),
    (HEAD+'parameters:\n  lr: {distribution: loguniform, min: 1, max: 2}', "line 5: .*no distribution 'loguniform'; did you mean log_uniform"),
    (HEAD+'parameters:\n  lr: {distribution: log_uniform_values, min: 0, max: 1}', 'line 5: .*min above 0'),
    (HEAD+'parameters:\n  lr: {distribution: beta, a: 1, b: 2}', "line 5: parameters.lr.a: sr_sweep does not know this"),
    (HEAD+'parameters:\n  lr: {min: 2.0, max: 1.0}', 'line 5: .*min 2.0 is more than max 1.0'),
    (HEAD+'parameters:\n  lr: {min: low, max: 1.0}', "line 5: parameters.lr.min: 'low' is no number"),
    (HEAD+'parameters:\n  lr: {values: []}', 'line 5: .*values should be a list'),
    (HEAD+'parameters:\n  lr: {values: [0.1, 0.2], probabilities: [0.5, 0.6]}', 'line 5: .*2 numbers that add up to 1'),
    (HEAD+'parameters:\n  lr: {values: [0.1, 0.2], probabilities: 3}', 'line 5: .*2 numbers that add up to 1'),
    (HEAD+'parameters:\n  lr: {value: 0.1}\n  lr: {value: 0.2}', 'line 6: parameters.lr is there twice'),
    (HEAD+'parameters:\n  lr: {value: 0.1}\nearly_terminate: {type: envelope}', "line 6: early_terminate.type: sr_sweep knows hyperband, not 'envelope'"),
    (HEAD+'parameters:\n  lr: {value: 0.1}\nearly_terminate: {type: hyperband}', 'line 6: .*either min_iter'),
    (HEAD+'parameters:\n  lr: {value: 0.1}\nearly_terminate: {type: hyperband, min_iter: 3, strict: true}', 'line 6: early_terminate.strict: sr_sweep does not know'),
    (HEAD+'parameters:\n  lr: {value: 0.1}\nscheduler: {engine: optuna}', 'line 6: scheduler: sr_sweep does not know this'),
    (HEAD+'program: mine.py\nparameters:\n  lr: {value: 0.1}', 'line 4: program: sr_sweep runs sr_train, not mine.py'),
    (HEAD+'command: [python, mine.py]\nparameters:\n  lr: {value: 0.1}', 'line 4: command: python: sr_sweep runs sr_train'),
    (HEAD.replace('psnr','pnsr')+'parameters:\n  lr: {value: 0.1}', "line 2: metric.name: 'pnsr' is never logged; did you mean psnr"),
    (HEAD.replace('maximize','best')+'parameters:\n  lr: {value: 0.1}', "line 2: metric.goal: should be minimize or maximize, not 'best'"),
    (HEAD.replace('4','0')+'parameters:\n  lr: {value: 0.1}', 'line 3: run_cap: should be a whole number from 1 up'),
    (HEAD.replace('{m}','grid')+'parameters:\n  lr: {min: 0.1, max: 0.2}', 'line 5: parameters.lr: a grid cannot have all values'),
    (HEAD.replace('{m}','bayes')+'parameters:\n  lr: {values: [0.1, 0.2], probabilities: [0.5, 0.5]}', 'line 5: parameters.lr.probabilities: method bayes')]

@pytest.mark.parametrize('text,says', BAD, ids=range(len(BAD)))
def test_a_bad_file_is_refused_before_any_training(tmp_path, capsys, text, says):
    file = tmp_path/'bad.yaml'
    file.write_text(text.replace('{m}','random'))
    with pytest.raises(SweepError, match=says): Sweep(file)
    assert sr_sweep([str(file)])==2 and capsys.readouterr().err.count('\n')==1
    assert not (tmp_path/'sweeps').exists()

def test_a_metric_that_this_training_has_not(tmp_path):
    "A column that exists, but not with these losses: said before the first batch."
    s = Sweep(dict(method='grid', metric=dict(name='valid_percep'), parameters=dict(lr=dict(values=[1e-4,1e-3]))), tmp_path/'o', **TINY)
    with pytest.raises(SweepError, match="valid_percep.* is never logged"): s.run(track=False, show=False)
    assert list(s.runs.epochs)==[0]

def test_a_metric_of_whole_images(tmp_path):
    s = Sweep(dict(method='grid', metric=dict(name='whole_psnr', goal='maximize'), parameters=dict(whole=dict(value='psnr'))), tmp_path/'o', **TINY)
    s.run(track=False, show=False)
    assert list(s.runs.state)==['done'] and s.best['value']>5

def test_random_needs_an_end(tmp_path):
    with pytest.raises(SweepError, match='no end'): Sweep(dict(method='random', metric=dict(name='psnr', goal='maximize'), parameters=dict(lr=dict(min=.1, max=.2))), tmp_path).run()

def test_another_sweep_in_its_folder_is_refused(tmp_path):
    def one(v): return Sweep(dict(method='grid', metric=dict(name='psnr', goal='maximize'), parameters=dict(a=dict(values=v))), tmp_path, train=lambda config,cbs: None)
    one([1]).runs
    with pytest.raises(SweepError, match=r'another sweep \(its parameters differ\)'): one([2]).run()

@pytest.mark.parametrize('why,says', [(filelock.Timeout('.lock'), 'running already'), (OSError(errno.ENOLCK, 'No locks available'), 'never logged')])
def test_one_at_a_time_where_there_are_locks(tmp_path, monkeypatch, why, says):
    def acquire(*_, **__): raise why
    monkeypatch.setattr(filelock.FileLock, 'acquire', acquire)
    sweep = Sweep(dict(method='grid', metric=dict(name='psnr', goal='maximize'), parameters=dict(a=dict(values=[1]))), tmp_path, train=lambda config,cbs: None)
    with pytest.raises(SweepError, match=says): sweep.run(jobs=1, track=False)

# W&B's own agent, on the command that the file asks for

def agent(command, args, monkeypatch):
    "W&B's agent, told by nobody to run `command` with `args`; its process."
    a = Agent(api=None, queue=multiprocessing.Queue())
    a._sweep_command = command
    monkeypatch.setenv('WANDB_SWEEP_ID', 'thesweep')
    a._command_run(dict(run_id='therun', program='sr_train', args={k:dict(value=v) for k,v in args.items()}))
    return a._run_processes['therun']

def test_the_agents_arguments_make_the_same_config():
    "For every run that the shipped file can ask for, nested options included."
    s = Sweep(root/'recipes'/'sweep.yaml')
    rng = np.random.default_rng(0)
    for _ in range(20):
        config = s.config({p.name:p.draw(rng) for p in s.params})
        flags = sweep_utils.create_sweep_command_args(dict(args={k:dict(value=v) for k,v in config.items()}))
        want = TrainConfig.from_dict(config)
        assert config_of_args(flags['args'])[0]==want and config_of_args(flags['args_no_equals'])[0]==want
    assert want.critic_width in (32,64) and want.critic_lr==config['critic']['lr']

def test_the_agent_trains_and_is_told_the_metric(tmp_path, monkeypatch):
    bin = tmp_path/'bin'
    bin.mkdir()
    exe = bin/'sr_train'
    exe.write_text(f'#!{sys.executable}\nimport sys\nfrom sr_fastai.train import sr_train\nsys.exit(sr_train())\n')
    exe.chmod(0o755)
    monkeypatch.setenv('PATH', f'{bin}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setenv('PYTHONWARNINGS', 'ignore')
    command = yaml.safe_load((root/'recipes'/'sweep.yaml').read_text())['command']
    args = {k:v for k,v in TINY.items() if not k.startswith('critic_')}
    p = agent(command, dict(args, lr=1e-3, critic=dict(width=8, depth=2)), monkeypatch)
    p.wait()
    assert p.poll()==0
    folder, = tmp_path.rglob('offline-run-*-therun')
    run = read_run(folder)
    assert run['exit']==0 and run['config']['critic']==dict(width=8, depth=2) and run['config']['lr']==1e-3 and run['history'][-1]['psnr']>5

def test_a_sweep_finds_its_planted_optimum(tmp_path, capsys):
    "Of eight trainings the one whose learning rate is neither nothing nor too much; each is a W&B run of one group."
    file = tmp_path/'planted.yaml'
    file.write_text(yaml.safe_dump(dict(name='planted', project='p', program='sr_train', command=['${env}','sr_train','--epochs=2','${args}'], method='grid', metric=dict(name='psnr', goal='maximize'),
        parameters=dict(lr=dict(values=[1e-8,1e-3,1.,30.]), critic=dict(parameters=dict(width=dict(values=[8,16]), depth=dict(value=2))),
                        **{k:dict(value=v) for k,v in TINY.items() if k not in ('epochs','critic_width','critic_depth')}))))
    assert sr_sweep([str(file), '-o', str(tmp_path/'o')])==0
    said = capsys.readouterr().out
    s = Sweep(file, tmp_path/'o')
    assert list(s.runs.state)==['done']*8 and set(s.runs.epochs)=={2} and s.best['config']['lr']==1e-3
    assert said.count('\nrun ')+said.startswith('run ')==8 and 'wandb sync' in said and '|' not in said
    assert s.importance()['lr'] > s.importance()['critic.width']
    page = (tmp_path/'o'/'report.html').read_text()
    assert page.count('<tr class=')==8 and page.count('class="best"')==1 and '<svg' in page and 'sr_train' in page and 'http' not in page.replace('http://www.w3.org/','')
    by_hand = shlex.split(html.unescape(re.search('<pre>sr_train (.*?)</pre>', page)[1]))
    assert config_of_args(by_hand)[0].critic_width==s.best['config']['critic']['width']
    runs = [read_run(f) for f in sorted((tmp_path/'o').glob('runs/*/wandb/offline-run-*'))]
    assert len(runs)==8 and {r['group'] for r in runs}=={'planted'} and {r['project'] for r in runs}=={'p'} and sorted(r['name'] for r in runs)[3]=='planted-003'
    assert {(r['config']['lr'],r['config']['critic']['width']) for r in runs}=={(a,b) for a in (1e-8,1e-3,1.,30.) for b in (8,16)}
    before = s.runs
    assert sr_sweep([str(file), '-o', str(tmp_path/'o')])==0 and Sweep(file, tmp_path/'o').runs.equals(before) # there is nothing left to do

def test_epochs_can_be_searched(tmp_path):
    "The table has a column of that name already."
    s = Sweep(dict(method='grid', metric=dict(name='psnr', goal='maximize'), parameters=dict(epochs=dict(values=[1,2]))), tmp_path/'o', **{k:v for k,v in TINY.items() if k!='epochs'})
    s.run(track=False, show=False)
    assert list(s.runs.state)==['done']*2 and list(s.runs.epochs)==list(s.runs['config.epochs'])==[1,2]
    assert s.report().exists()

FAKE = '''
import multiprocessing, os, sys, time
from fastai.vision.all import CancelFitException, Recorder
from pathlib import Path
from sr_fastai.sweep import Sweep
log = Path(__file__).parent/'log.txt'
def note(*what):
    with open(log, 'a') as f: f.write(' '.join(map(str, what))+chr(10))
class Learn: recorder = Recorder()
def train(config, cbs):
    run = Path(config['out']).name
    assert not multiprocessing.current_process().daemon # such a one may not have processes that prepare its batches
    note('start', run, config['a'], config['b'], os.getpid())
    Learn.recorder.metric_names = ['epoch','psnr']
    for cb in cbs: cb.learn = Learn
    for i in range(3):
        time.sleep(.05)
        Learn.recorder.log = [i, config['a']+i]
        for cb in cbs: cb.after_epoch()
    note('end', run, config['a'], config['b'], os.getpid())
if __name__=='__main__':
    import fake
    assert not {'wandb','optuna'} & set(sys.modules) # both wait until they are needed
    spec = dict(method=sys.argv[1], metric=dict(name='psnr', goal='maximize'), run_cap=16,
                parameters=dict(a=dict(values=[1,2,3,4]) if sys.argv[1]=='grid' else dict(min=0., max=4.), b=dict(values=[1,2,3,4])))
    s = Sweep(spec, Path(__file__).parent/'o', fake.train)
    s.run(jobs=2, track=False)
'''

@pytest.mark.parametrize('method', ['grid',pytest.param('bayes', marks=pytest.mark.slow)])
def test_killed_and_gone_on_with(tmp_path, method):
    "Two at a time, kill -9 in the middle: the workers die too, no run is lost, none that was done is run again, no point twice."
    both = '''    while len({l.split()[-1] for l in log.read_text().splitlines()})<2: time.sleep(.02) # the other worker may take longer to begin
'''
    (tmp_path/'fake.py').write_text(FAKE.replace('    for i in range(3):', both+'    for i in range(3):'))
    log,env = tmp_path/'log.txt',{**os.environ, 'OMP_NUM_THREADS':'1', 'PYTHONWARNINGS':'ignore'}
    def lines(): return [l.split() for l in log.read_text().splitlines()] if log.exists() else []
    def start(): return subprocess.Popen([sys.executable, 'fake.py', method], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    p,deadline = start(),time.time()+120
    while sum(l[0]=='end' for l in lines())<5 and p.poll() is None and time.time()<deadline: time.sleep(.01)
    assert p.poll() is None, p.stderr.read()
    p.kill()
    p.wait()
    workers = {int(l[4]) for l in lines()}
    assert len(workers)==2
    def alive(pid):
        try: return Path(f'/proc/{pid}/stat').read_text().split()[2]!='Z'
        except OSError: return False
    deadline = time.time()+10
    while any(map(alive, workers)) and time.time()<deadline: time.sleep(.02)
    assert not any(map(alive, workers))
    first = lines()
    ended = {l[1] for l in first if l[0]=='end'}
    p = start()
    out = p.communicate(timeout=120)[0]
    assert p.returncode==0
    second = lines()[len(first):]
    s = Sweep(dict(method=method, metric=dict(name='psnr', goal='maximize'), run_cap=16, parameters=dict(a=dict(values=[1,2,3,4]) if method=='grid' else dict(min=0., max=4.), b=dict(values=[1,2,3,4]))), tmp_path/'o', lambda c,cbs: None)
    runs = s.runs
    assert list(runs.run)==list(range(16)) and list(runs.state)==['done']*16
    again = {l[1] for l in second if l[0]=='start'}
    # what a worker had ended may not have been written down when the parent died: those two at the most
    assert len(ended & again)<=2 and {l[1] for l in first if l[0]=='start'}-ended <= again
    points = {l[1]:(l[2],l[3]) for l in first+second}
    assert len(points)==16 and all(points[l[1]]==(l[2],l[3]) for l in first+second)
    if method=='grid': assert len(set(points.values()))==16
    assert s.best['value']==max(float(a) for a,_ in points.values())+2
    assert 'run 15 done' in out

def test_workers_keep_to_the_gpus_of_this_job(monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2,GPU-5a')
    assert [_gpu(i, 2) for i in range(3)]==['2','GPU-5a','2']
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES')
    assert [_gpu(i, 2) for i in range(3)]==['0','1','0'] and _gpu(1, 0) is None

def test_stopped_in_its_pretraining(tmp_path):
    "The GAN does not begin then, the run has ended as it should, and one that goes on knows that it was stopped."
    from sr_fastai.train import train
    report = ReportMetric('psnr', lambda n, value: True)
    learn = train(TrainConfig(**dict(TINY, pretrain=1, out=str(tmp_path))), report)
    assert report.stopped and not learn.recorder.values and (tmp_path/'weights.safetensors').exists()
    again = ReportMetric('psnr', None)
    again.load_state_dict(report.state_dict())
    assert again.stopped

@pytest.mark.slow
def test_a_worker_that_dies_is_a_run_that_failed(tmp_path):
    (tmp_path/'fake.py').write_text(FAKE.replace("    for i in range(3):", "    if config['a']==2 and config['b']==1: os.kill(os.getpid(), 9)\n    if config['a']==3: raise MemoryError('no room')\n    for i in range(3):"))
    subprocess.run([sys.executable, 'fake.py', 'grid'], cwd=tmp_path, check=True, timeout=120, capture_output=True)
    s = Sweep(dict(method='grid', metric=dict(name='psnr', goal='maximize'), run_cap=16, parameters=dict(a=dict(values=[1,2,3,4]), b=dict(values=[1,2,3,4]))), tmp_path/'o', lambda c,cbs: None)
    df = s.runs
    assert (df.state=='failed').sum()==5 and (df.state=='done').sum()==11
    assert 'died with -9' in df[(df.a==2)&(df.b==1)].error.iloc[0] and 'MemoryError: no room' in df[df.a==3].error.iloc[0]
    assert 'no room' in (tmp_path/'o'/'runs'/f'{df[df.a==3].run.iloc[0]:03}'/'error.txt').read_text()

def test_a_gan_is_not_judged_by_its_pretraining():
    "What it was pretrained to is better than a training that spoils it."
    from fastai.vision.all import Recorder
    class Learn: recorder = Recorder()
    class GANLearn(Learn): gan_trainer = object()
    told = []
    r = ReportMetric('best_psnr', lambda *a: told.append(a), gan=True)
    Learn.recorder.metric_names = ['epoch','psnr']
    for learn,psnr in ((Learn,30.),(GANLearn,11.),(GANLearn,12.)):
        r.learn = learn
        Learn.recorder.log = [0,psnr]
        r.after_epoch()
    assert told==[(1,11.),(2,12.)]
    alone = ReportMetric('psnr', lambda *a: told.append(a))
    alone.learn = Learn
    alone.after_epoch()
    assert told[-1]==(1,12.)

@pytest.mark.parametrize('metric', [dict(name='psnr'), dict(name='psnr', goal='minimize'), dict(name='best_ssim'), dict(name='lpips', goal='maximize'), dict(name='whole_psnr'), dict(name='whole_ssim_rgb'), dict(name='whole_lpips_vgg', goal='maximize')])
def test_the_worst_is_not_searched_for(metric, tmp_path):
    with pytest.raises(SweepError, match='is best: say goal: m'): Sweep(dict(method='grid', metric=metric, parameters=dict(lr=dict(values=[1e-4]))), tmp_path, metrics=('psnr','best_ssim','lpips','whole_psnr','whole_ssim_rgb','whole_lpips_vgg'), **TINY)
