"A folder run on a Ray cluster of two workers on this machine: the same bytes, nothing lost, a clear word."
import os, signal, socket, subprocess, sys, time
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from sr_fastai.cluster import ClusterError, upscale_on_ray
from sr_fastai.cli import sr_upscale
from sr_fastai.folders import upscale_folder
from sr_fastai.models import Generator
from sr_fastai.weights import save_weights

@pytest.fixture(scope='module')
def address():
    "A cluster of two cores, connected to this process."
    os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
    ray = pytest.importorskip('ray', reason='Ray is not installed')
    if sys.platform=='win32': pytest.skip('signals')
    ray.init('local', num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level='ERROR')
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()

@pytest.fixture(scope='module')
def model(tmp_path_factory): return save_weights(Generator(width=16, depth=2), tmp_path_factory.mktemp('w')/'m.safetensors')

@pytest.fixture(scope='module')
def src(tmp_path_factory):
    d = tmp_path_factory.mktemp('in')
    for i in range(8): Image.fromarray(np.random.default_rng(i).integers(0, 256, (160+i,300,3), dtype=np.uint8)).save(d/f'{i}.png')
    (d/'9.png').write_text('Dear diary')
    return d

@pytest.fixture(scope='module')
def here(src, model, tmp_path_factory):
    "What a run on this machine makes of it."
    out = tmp_path_factory.mktemp('here')
    upscale_folder(src, out, model=model)
    return pictures(out)

def pictures(out): return {p.name:p.read_bytes() for p in out.glob('*.png')}

def workers():
    "Processes that are at work on a picture for the cluster of this process."
    def parent(p): return int((p/'stat').read_text().rsplit(')', 1)[1].split()[1])
    def ours(p):
        while p.name not in ('0','1'):
            if p.name==str(os.getpid()): return True
            p = Path('/proc')/str(parent(p))
    found = []
    for p in Path('/proc').glob('[0-9]*'):
        try:
            if (p/'cmdline').read_bytes().startswith(b'ray::_do') and ours(p): found.append(int(p.name))
        except OSError: pass # it has ended
    return found

def test_a_killed_worker_loses_nothing(address, src, model, here, tmp_path):
    killed,seen = [],[]
    def progress(n, total, job):
        seen.append((n,total))
        if n<3: return
        deadline = time.time()+5
        while not killed and time.time()<deadline:
            for pid in workers()[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
    r = upscale_on_ray(src, tmp_path/'out', address, model=model, progress=progress)
    assert killed, 'nobody was at work'
    assert seen==[(i+1,9) for i in range(9)]
    assert len(r.done)==8 and [p.name for p,_ in r.failed]==['9.png'] and 'whatever its name says' in r.failed[0][1] and r.failed[0][1].count(str(src))==1
    assert pictures(tmp_path/'out')==here
    # and what a cluster did is done here too
    assert len(upscale_folder(src, tmp_path/'out', model=model).skipped)==8

def command(*args): return [sys.executable, '-m', 'sr_fastai.cli', *map(str, args)]

def test_command_interrupted_and_run_again(address, src, model, here, tmp_path):
    args = command(src, '-o', tmp_path/'out', '-m', model, '--ray', address, '--ensemble')
    p = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.time()+60
    while not pictures(tmp_path/'out') and time.time()<deadline: time.sleep(.02)
    p.send_signal(signal.SIGINT)
    assert (p.communicate(timeout=60),p.returncode)==(('', 'sr_upscale: stopped; nothing is half-written; the same command goes on from here\n'),130)
    n = len(pictures(tmp_path/'out'))
    assert 0<n<8 and not list((tmp_path/'out').glob('.*.part'))
    r = subprocess.run(args, capture_output=True, text=True, timeout=100)
    assert r.returncode==1 and f'{8-n} done, {n} done before, 1 failed' in r.stdout and r.stderr.count('\n')==1 and '9.png' in r.stderr

def test_errors_on_the_way(address, src, tmp_path, monkeypatch):
    import sr_fastai
    from sr_fastai import cluster
    with pytest.raises(ClusterError, match='no GPU'): upscale_on_ray(src, tmp_path/'out', address, device='cuda')
    monkeypatch.setattr(cluster, 'sr_fastai', type('newer', (), dict(__version__='999')))
    with pytest.raises(ClusterError, match=f'has sr_fastai {sr_fastai.__version__} and this machine has 999'): upscale_on_ray(src, tmp_path/'out', address)

def test_wrong_addresses_are_told_at_once(capfd, src, tmp_path, monkeypatch):
    from sr_fastai import cluster
    monkeypatch.setitem(sys.modules, 'ray', type(sys)('ray'))
    sys.modules['ray'].is_initialized = lambda: False
    def said(a):
        t = time.perf_counter()
        assert sr_upscale([str(src), '-o', str(tmp_path/'out'), '--ray', a])==2 and time.perf_counter()-t<6
        o,e = capfd.readouterr()
        assert not o and e.count('\n')==1 and not (tmp_path/'out').exists()
        return e
    with socket.socket() as s:
        s.bind(('127.0.0.1',0))
        assert 'no Ray cluster answers at 127.0.0.1' in said(f'127.0.0.1:{s.getsockname()[1]}')
        assert 'no Ray cluster answers at ray://' in said(f'ray://127.0.0.1:{s.getsockname()[1]}')
    assert 'write HOST:PORT' in said('nonsense')
    assert 'for a folder' in (sr_upscale([str(src/'1.png'), '--ray', 'auto']) and capfd.readouterr()[1])
    monkeypatch.setitem(sys.modules, 'ray', None)
    assert 'pip install sr_fastai[cluster]' in said('auto')
