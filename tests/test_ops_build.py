"The build: what can go wrong on other people's machines. A stand-in compiler that hands out finished files makes it quick."
import os, shutil, signal, subprocess, sys, time, zipfile
from pathlib import Path
import pytest, torch
from sr_fastai import ops

pytestmark = pytest.mark.skipif(sys.platform=='win32' or not ops._cxx(), reason='no C++ compiler')
real = ops._cxx()

@pytest.fixture(scope='module')
def finished():
    "The real library, from the user's cache."
    assert ops.build(again=False)[0]=='native'
    return ops._Library('cpu').path

@pytest.fixture
def box(tmp_path, monkeypatch):
    "An empty cache, and a stand-in compiler: `box.gives` is the library that it makes, `box.hold` a file while which it waits, `box.fail` a file with the error that it gives."
    class Box:
        root,log,hold,fail,cxx,gives = tmp_path/'cache'/'sr_fastai'/'ops',tmp_path/'log',tmp_path/'hold',tmp_path/'fail',tmp_path/'c++',tmp_path/'gives.so'
        def runs(self): return self.log.read_text().count('.so\n') if self.log.exists() else 0
        def attempts(self): return len(self.log.read_text().splitlines()) if self.log.exists() else 0
        def env(self, **kw): return {**os.environ, **{k:str(v) for k,v in kw.items()}}
    b = Box()
    b.cxx.write_text(f'''#!/bin/sh
out=; for a in "$@"; do [ "$prev" = -o ] && out="$a"; prev="$a"; done
[ -z "$out" ] && exec {real} "$@"
echo "$out" >> {b.log}
while [ -e {b.hold} ]; do sleep .05; done
if [ -e {b.fail} ]; then cat {b.fail} >&2; exit 1; fi
case "$out" in *.so) cp {b.gives} "$out";; *) : > "$out";; esac
''')
    b.cxx.chmod(0o755)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    monkeypatch.setenv('CXX', str(b.cxx))
    monkeypatch.delenv('SR_FASTAI_OPS', raising=False)
    return b

@pytest.fixture
def hollow(box):
    "A library without operators, which this process can load as often as it likes."
    subprocess.run([real, '-shared', '-x', 'c', '/dev/null', '-o', str(box.gives)], check=True)
    return box

@pytest.fixture
def whole(box, finished):
    shutil.copy(finished, box.gives)
    return box

call = '''
import torch, warnings
from sr_fastai import ops
y = ops.pixel_shuffle_sigmoid(torch.zeros(1,4,2,2), 2)
assert y.shape==(1,1,4,4) and (y==.5).all()
print(ops.backend()[0])
'''
def start(code, **env): return subprocess.Popen([sys.executable, '-c', code], env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
def end(p):
    out,err = p.communicate(timeout=240)
    assert p.returncode==0, err
    return out.strip(),err
def until(f, timeout=240):
    stop = time.time()+timeout
    while not f():
        assert time.time()<stop, 'waited in vain'
        time.sleep(.05)

def test_builds_once_then_is_found(hollow):
    lib = ops._Library('cpu')
    assert lib.find() is None
    lib.build()
    assert lib.find()==lib.path and hollow.runs()==1
    assert {p.suffix for p in hollow.root.iterdir()}=={'.so','.lock'}
    ops._Library('cpu').build()
    assert hollow.runs()==1

def test_several_processes_build_once(whole):
    ps = [start(call) for _ in range(3)]
    assert [end(p)[0] for p in ps]==['native']*3
    assert whole.runs()==1

def test_killed_half_way(whole):
    whole.hold.touch()
    p = start(call)
    until(whole.attempts)
    os.killpg(p.pid, signal.SIGKILL)
    p.wait()
    assert len(list(whole.root.glob('*.tmp')))==1
    whole.hold.unlink()
    assert end(start(call))[0]=='native'
    assert not list(whole.root.glob('*.tmp'))

def test_waits_for_another_builder(whole):
    "Whoever holds the lock may die: the kernel frees it, whatever files are left."
    whole.hold.touch()
    first = start(call)
    until(whole.attempts)
    second = start(call)
    time.sleep(3)
    assert second.poll() is None
    os.killpg(first.pid, signal.SIGKILL)
    whole.hold.unlink()
    assert end(second)[0]=='native'
    first.wait()

def test_failure_is_remembered_until_something_changes(hollow):
    hollow.fail.write_text('x.cpp:1:2: fatal error: no such luck\nmore\n')
    with pytest.raises(ops.BuildError, match='no such luck.*python -m sr_fastai.ops build tries again'): ops._Library('cpu').build()
    n = hollow.attempts()
    with pytest.raises(ops.BuildError, match='no such luck'): ops._Library('cpu').build()
    assert hollow.attempts()==n
    assert not list(hollow.root.glob('*.tmp'))
    hollow.fail.unlink()
    os.utime(hollow.cxx, (1, 1)) # another compiler
    ops._Library('cpu').build()
    assert hollow.runs()==1

def test_asking_again_tries_again(hollow):
    hollow.fail.write_text('error: no such luck\n')
    with pytest.raises(ops.BuildError): ops._Library('cpu').build()
    hollow.fail.unlink()
    ops._Library('cpu').build(again=True)
    assert not ops._Library('cpu').failure.exists() and ops._Library('cpu').find()

def test_full_disk_is_not_remembered(hollow, monkeypatch):
    hollow.fail.write_text('fatal error: error writing to x.o: No space left on device\n')
    with pytest.raises(ops.BuildError, match='No space left'): ops._Library('cpu').build()
    hollow.fail.unlink()
    with monkeypatch.context() as m:
        m.setattr(shutil, 'disk_usage', lambda p: shutil._ntuple_diskusage(100, 100, 0))
        with pytest.raises(ops.BuildError, match='full disk: make room, or set XDG_CACHE_HOME'): ops._Library('cpu').build()
    ops._Library('cpu').build()

@pytest.mark.parametrize('how', ['a file','no permission','nowhere'])
def test_cache_folder_that_cannot_be_written(hollow, monkeypatch, how, tmp_path):
    if how=='a file': (tmp_path/'cache').touch()
    if how=='nowhere': monkeypatch.setenv('XDG_CACHE_HOME', '/proc/nowhere')
    if how=='no permission': monkeypatch.setattr(os, 'access', lambda p, m, access=os.access: m!=os.W_OK and access(p, m))
    with pytest.raises(ops.BuildError, match='cache folder .* (cannot be made|is read-only).*set XDG_CACHE_HOME'): ops._Library('cpu').build()
    assert hollow.attempts()==0

def test_missing_tools(hollow, monkeypatch):
    with monkeypatch.context() as m:
        m.setenv('CXX', '/no/such/compiler')
        with pytest.raises(ops.BuildError, match='no C.. compiler .*install g'): ops._Library('cpu').build()
    with monkeypatch.context() as m:
        m.setattr(ops, '_ninja_path', lambda: None)
        with pytest.raises(ops.BuildError, match='pip install ninja'): ops._Library('cpu').build()
    with monkeypatch.context() as m:
        m.setattr(ops, '_cuda_home', lambda: None)
        with pytest.raises(ops.BuildError, match=r'pip install "sr_fastai\[cuda\]"'): ops._Library('cuda', ['90']).build()
    assert hollow.attempts()==0

def test_ninja_of_the_environment_is_found_without_path(monkeypatch):
    ninja = pytest.importorskip('ninja')
    monkeypatch.setenv('PATH', '/usr/bin')
    assert ops._ninja_path()==ninja.BIN_DIR

def toolkit(at, version):
    for d in ('bin','include'): (at/d).mkdir(parents=True)
    (at/'bin/nvcc').touch()
    (at/'include/cuda.h').write_text(f'#define CUDA_VERSION {version}\n')
    return at

def test_cuda_toolkits(hollow, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.version, 'cuda', '13.2')
    monkeypatch.setenv('CUDA_HOME', str(toolkit(tmp_path/'old', 11080)))
    monkeypatch.setenv('PATH', str(tmp_path))
    new = toolkit(tmp_path/'site/nvidia/cu13', 13020)
    monkeypatch.setattr(sys, 'path', [*sys.path, str(tmp_path/'site')])
    assert ops._cuda_version(ops._cuda_home())[0]==13 # an old one does not hide a new one
    monkeypatch.setattr(ops, '_cuda_home', lambda: tmp_path/'old')
    monkeypatch.setenv('CXX', str(hollow.cxx))
    with pytest.raises(ops.BuildError, match='is 11.8, but torch was made with 13.2: install'): ops._Library('cuda', ['90']).build()
    monkeypatch.undo()
    monkeypatch.setattr(torch.version, 'cuda', '13.2')
    monkeypatch.setattr(ops.shutil, 'which', lambda *a: None)
    monkeypatch.delenv('CUDA_HOME', raising=False)
    monkeypatch.setattr(ops.sys, 'path', [str(tmp_path/'site')])
    assert ops._cuda_home() in (new, Path('/usr/local/cuda'))

def test_key_has_what_a_build_depends_on(hollow, monkeypatch, tmp_path):
    seen = [ops._Library('cpu').path, ops._Library('cuda', ['90']).path, ops._Library('cuda', ['80']).path]
    def changed(f):
        with monkeypatch.context() as m:
            f(m)
            seen.append(ops._Library('cpu').path)
    changed(lambda m: m.setattr(torch, '__version__', '9.9'))
    changed(lambda m: m.setattr(torch, 'compiled_with_cxx11_abi', lambda: 'other'))
    changed(lambda m: m.setattr(ops.sysconfig, 'get_config_var', lambda k: 'other'))
    changed(lambda m: m.setattr(ops, '_processor', lambda: 'other'))
    changed(lambda m: m.setenv('CPATH', '/other'))
    changed(lambda m: m.setenv('CXX', real))
    csrc = tmp_path/'csrc'
    shutil.copytree(ops._csrc(), csrc)
    (csrc/'cpu.h').write_text((csrc/'cpu.h').read_text()+'\n')
    changed(lambda m: m.setattr(ops, '_csrc', lambda: csrc))
    assert len(set(seen))==len(seen)
    assert ops._Library('cpu').path==seen[0]

def test_finished_build_serves_where_the_compiler_is_gone(hollow, monkeypatch):
    ops._Library('cpu').build()
    path = ops._Library('cpu').path
    monkeypatch.setenv('CXX', '/no/such/compiler')
    assert ops._Library('cpu').find()==path

@pytest.fixture
def fresh(hollow, finished, monkeypatch):
    "This process, as if it had not looked for a library yet. (The real operators stay loaded, and do the work.)"
    monkeypatch.setattr(ops, '_found', {})
    monkeypatch.setattr(ops, '_register', lambda: None)
    return hollow

def shuffle(f=ops.pixel_shuffle_sigmoid):
    y = f(torch.zeros(1,4,2,2), 2)
    assert y.shape==(1,1,4,4) and (y==.5).all()

def test_damaged_file_is_built_anew(fresh):
    lib = ops._Library('cpu')
    fresh.root.mkdir(parents=True)
    lib.path.write_bytes(b'\x7fELF cut short')
    with ops.no_build(): shuffle()
    assert 'does not load' in ops.backend()[1] and fresh.runs()==0
    shuffle()
    assert ops.backend()[0]=='native' and fresh.runs()==1

def test_no_build_is_silent_and_uses_what_is_there(fresh, monkeypatch, recwarn, capfd):
    with ops.no_build(): shuffle()
    assert ops.backend()==('torch', 'not built yet: python -m sr_fastai.ops build') and not fresh.root.exists()
    shuffle() # but this call may
    assert ops.backend()[0]=='native' and fresh.runs()==1
    monkeypatch.setattr(ops, '_found', {}) # as the next process has it
    capfd.readouterr()
    with ops.no_build(): shuffle()
    assert ops.backend()[0]=='native' and fresh.runs()==1
    assert not recwarn.list and capfd.readouterr()==('','')

def test_failure_falls_back_with_one_line(fresh):
    fresh.fail.write_text('error: no such luck\n')
    with pytest.warns(UserWarning) as seen:
        for _ in range(3): shuffle()
    assert [str(w.message) for w in seen]==['pixel_shuffle_sigmoid runs in plain torch on cpu: compiling for cpu failed: error: no such luck (python -m sr_fastai.ops build tries again)']
    assert seen[0].filename==__file__
    assert ops.backend()[0]=='torch'

def test_mode(fresh, monkeypatch):
    fresh.fail.write_text('error: no such luck\n')
    monkeypatch.setenv('SR_FASTAI_OPS', 'torch')
    shuffle()
    assert ops.backend()==('torch','SR_FASTAI_OPS=torch') and fresh.attempts()==0
    monkeypatch.setenv('SR_FASTAI_OPS', 'native')
    with pytest.raises(ValueError, match='SR_FASTAI_OPS=native, but pixel_shuffle_sigmoid has no native kernels on cpu: compiling for cpu failed: error: no such luck'): shuffle()
    monkeypatch.setenv('SR_FASTAI_OPS', 'fast')
    for f in (shuffle, ops.backend):
        with pytest.raises(ValueError, match="must be 'auto', 'native' or 'torch', not 'fast'"): f()

def test_compile_builds_while_tracing(fresh):
    shuffle(torch.compile(ops.pixel_shuffle_sigmoid, fullgraph=True, backend='eager'))
    assert ops.backend()[0]=='native' and fresh.runs()==1

def test_command(fresh, capsys):
    ops.main([])
    out = capsys.readouterr().out
    assert 'cpu: torch (not built yet: python -m sr_fastai.ops build)' in out and str(fresh.root) in out and not fresh.root.exists()
    fresh.fail.write_text('error: no such luck\n')
    with pytest.raises(SystemExit) as e: ops.main(['build','cpu'])
    assert e.value.code==1 and 'no such luck' in capsys.readouterr().out
    fresh.fail.unlink()
    ops.main(['build','cpu'])
    assert 'cpu: native' in capsys.readouterr().out

def test_import_compiles_nothing(whole):
    assert end(start("import sys, sr_fastai, sr_fastai.ops\nassert 'torch.utils.cpp_extension' not in sys.modules"))==('','')
    res = subprocess.run([sys.executable, '-m', 'sr_fastai.ops', 'report', 'cpu'], capture_output=True, text=True)
    assert res.returncode==0 and res.stdout.startswith('cpu: torch (not built yet') and not res.stderr
    assert not whole.root.exists()

def test_installed_package_has_its_sources_inside(whole, tmp_path):
    "As in a wheel: csrc in the package, on a path that is not to be written to."
    pkg = tmp_path/'site'/'sr_fastai'
    pkg.mkdir(parents=True)
    for f in ('__init__.py','ops.py'): shutil.copy(Path(ops.__file__).parent/f, pkg)
    shutil.copytree(ops._csrc(), pkg/'csrc')
    before = sorted((pkg/'csrc').iterdir())
    p = subprocess.run([sys.executable, '-c', call+'print(ops._csrc())'], capture_output=True, text=True, env=whole.env(PYTHONPATH=pkg.parent), cwd=tmp_path)
    assert p.returncode==0, p.stderr
    assert p.stdout.split()==['native', str(pkg/'csrc')] and sorted((pkg/'csrc').iterdir())==before

@pytest.mark.slow
def test_wheel_builds_for_real(tmp_path):
    root = Path(__file__).parents[1]
    src = tmp_path/'src'
    shutil.copytree(root, src, ignore=shutil.ignore_patterns('.git', 'build', 'dist', '*.egg-info', 'runs', 'models'))
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', tmp_path, src], check=True)
    wheel = next(tmp_path.glob('*.whl'))
    assert {'sr_fastai/csrc/'+p.name for p in ops._csrc().iterdir()} <= set(zipfile.ZipFile(wheel).namelist())
    zipfile.ZipFile(wheel).extractall(tmp_path/'site')
    env = {**os.environ, 'PYTHONPATH':str(tmp_path/'site'), 'XDG_CACHE_HOME':str(tmp_path/'cache')}
    t = time.time()
    p = subprocess.run([sys.executable, '-m', 'sr_fastai.ops', 'check', 'cpu'], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert p.returncode==0 and 'agrees with torch' in p.stdout and str(tmp_path/'cache') in p.stdout, p.stdout+p.stderr
    print(f'built and checked in {time.time()-t:.0f} s')

@pytest.mark.slow
def test_cuda_library_builds_and_registers(tmp_path):
    "Compiles, links and loads without a GPU; only its kernels need one."
    if not ops._cuda_home() or not torch.version.cuda: pytest.skip('no CUDA toolkit, or a torch without CUDA')
    code = '''from sr_fastai import ops; import torch
assert ops.build('cpu')[0]=='native'
ops._Library('cuda', ['90']).build()
assert torch._C._dispatch_has_kernel_for_dispatch_key('sr_fastai::pixel_shuffle_sigmoid', 'CUDA')'''
    end(start(code, XDG_CACHE_HOME=str(tmp_path)))

def test_a_user_without_a_home(box, monkeypatch):
    "A container's, say: plain torch does the work, and says why."
    monkeypatch.setattr(ops, 'xdg_cache_home', lambda: (_ for _ in ()).throw(RuntimeError('Could not determine home directory.')))
    assert ops._find('cpu', True)==('torch','this user has no home folder: set XDG_CACHE_HOME to a folder that can be written')

def test_report_without_a_home(monkeypatch, capsys):
    monkeypatch.setattr(ops, 'xdg_cache_home', lambda: (_ for _ in ()).throw(RuntimeError('Could not determine home directory.')))
    ops.main(['report'])
    assert 'set XDG_CACHE_HOME' in capsys.readouterr().out
