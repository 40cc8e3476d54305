"A run over a folder that things happen to."
import errno, os, signal, subprocess, sys, time
from dataclasses import replace
import numpy as np, pytest
from PIL import Image
from sr_fastai import folders
from sr_fastai.files import part_start
from sr_fastai.folders import *
from sr_fastai.imageio import read_image, write_image
from sr_fastai.models import Generator
from sr_fastai.weights import save_weights

@pytest.fixture(scope='module')
def model(tmp_path_factory): return save_weights(Generator(width=4, depth=1), tmp_path_factory.mktemp('w')/'m.safetensors')

@pytest.fixture
def src(tmp_path):
    (tmp_path/'in').mkdir()
    for i in range(5): Image.fromarray(np.random.default_rng(i).integers(0, 256, (20,30,3), dtype=np.uint8)).save(tmp_path/'in'/f'{i}.png')
    return tmp_path/'in'

def pictures(out): return {p.name:p.read_bytes() for p in out.glob('*.png')}
def parts(out): return list(out.rglob('.*.part'))

def test_the_same_as_one_by_one(src, model, tmp_path):
    from sr_fastai.engine import upscale_file
    upscale_folder(src, tmp_path/'out', model=model)
    upscale_file(src/'0.png', tmp_path/'one.png', model=model)
    assert (tmp_path/'one.png').read_bytes()==(tmp_path/'out'/'0.png').read_bytes()

@pytest.mark.skipif(sys.platform=='win32', reason='signals')
def test_killed_in_the_middle(src, model, tmp_path):
    "kill -9 at any moment, then again: nothing lost, nothing half-written, nothing taken for foreign."
    code = """
import sys, os, signal, time
from sr_fastai import folders, files
# die at the n-th step of writing: before, in and after the ledger, before and after the rename
n = int(sys.argv[4])
def count(f):
    def g(*a, **k):
        global n
        n -= 1
        if n<0: os.kill(os.getpid(), signal.SIGKILL)
        return f(*a, **k)
    return g
os.replace,os.fsync,folders.Ledger.enter = count(os.replace),count(os.fsync),count(folders.Ledger.enter)
folders.upscale_folder(*sys.argv[1:3], model=sys.argv[3])
"""
    out = tmp_path/'out'
    for n in (0,2,4): # each run gets a little farther
        r = subprocess.run([sys.executable, '-c', code, str(src), str(out), str(model), str(n)], capture_output=True, timeout=100)
        assert r.returncode==-signal.SIGKILL
        for p in out.glob('*.png'): read_image(p) # whole
    r = upscale_folder(src, out, model=model)
    assert not r.failed and len(r.done)+len(r.skipped)==5 and r.skipped and not parts(out)
    upscale_folder(src, tmp_path/'fresh', model=model)
    assert pictures(out)==pictures(tmp_path/'fresh')

@pytest.mark.parametrize('kw,says', [(dict(quality=0), 'quality must be from 1 to 100'), (dict(strength=2), 'strength must be from 0 to 1'), (dict(strength=.5), 'm.safetensors has no start'),
    (dict(strength=.5, model=Generator(width=4, depth=1)), 'a network has one strength'), (dict(model='typo'), 'no weights are called'), (dict(tile=0), 'tile must'), (dict(threads=0), 'threads must'), (dict(device='nonsense'), "can't be used"),
    (dict(scale=0), 'scale must'), (dict(size=7), 'size must')])
def test_what_no_picture_could_have_is_refused_once(src, model, tmp_path, kw, says):
    with pytest.raises(ValueError, match=says): upscale_folder(src, tmp_path/'out', **dict(dict(model=model), **kw))
    assert not (tmp_path/'out').exists()

def test_an_option_that_there_is_not(src, model, tmp_path):
    with pytest.raises(TypeError, match='tiles'): upscale_folder(src, tmp_path/'out', model=model, tiles=3)

def test_names_say_the_size(src, model, tmp_path):
    r = upscale_folder(src, tmp_path/'out', model=model, size=(50,40), name='{stem}_{scale}')
    assert r.done[0].name=='0_50x40.png' and read_image(r.done[0]).size==(50,40)

def test_names_as_long_as_they_may_be(src, model, tmp_path):
    (src/'0.png').rename(src/('写'*80+'.png')) # 244 bytes
    assert not upscale_folder(src, tmp_path/'out', model=model).failed

@pytest.mark.parametrize('name', ['写'*80, 'a'+'é'*80, 'x'*200, 'short.png'])
def test_unfinished_files_have_whole_characters(name):
    "A part of one is no name where names are Unicode."
    start = part_start(name)
    assert start.encode() and name.startswith(start[1:-1]) and len(start.encode())<=102 and len(start)>min(34, len(name))

def test_names_that_differ_by_case_alone(src, model, tmp_path):
    from sr_fastai.files import ignores_case
    Image.new('RGB', (5,5)).save(src/'A.PNG')
    Image.new('RGB', (6,6)).save(src/'a.png')
    if ignores_case(src): pytest.skip('one file here')
    r = upscale_folder(src, tmp_path/'out', model=model)
    assert not r.failed and [read_image(tmp_path/'out'/o).size for o in ('A.PNG','a.png')]==[(10,10),(12,12)]

def test_what_a_format_cannot_hold_is_noted(src, model, tmp_path):
    "Where the work is done elsewhere nobody sees a warning."
    write_image(replace(read_image(src/'0.png'), xmp=b'<x>'+b' '*70_000), src/'0.png')
    r = upscale_folder(src, tmp_path/'out', model=model, format='jpg')
    (p,note), = r.notes
    assert p==src/'0.png' and 'more than a JPEG holds' in note and not r.failed

def test_consistent_is_no_way_to_make_less(src, model, tmp_path):
    with pytest.raises(ValueError, match='scale from 1 up, not 0.5'): upscale_folder(src, tmp_path/'out', model=model, scale=.5, consistent=True)

def test_memory_that_runs_out_without_a_word_is_explained(): assert explained(MemoryError(), 'a.png')=='a.png: not enough memory'

def test_networks_are_told_apart():
    a = Generator(width=4, depth=1)
    b = Generator(width=4, depth=1, slope=.1)
    b.load_state_dict(a.state_dict())
    assert len({Work(model=o).key() for o in (a,b,Generator(width=4, depth=1))})==3

def test_files_of_other_programs_are_not_swept_up(src, model, tmp_path):
    out = tmp_path/'out'
    (out/'sub').mkdir(parents=True)
    (out/'.folder.abcdefgh.part').mkdir()
    theirs = [out/'.film.mkv.part', out/'sub'/'.0.png.abcdefgh.part', out/'.mine.png.abcdefgh.part'] # the last: of `upscale_file` beside this run
    for p in (*theirs, out/'.0.png.abcdefgh.part'): p.write_text('x')
    upscale_folder(src, out, model=model)
    assert all(p.exists() for p in theirs) and not (out/'.0.png.abcdefgh.part').exists()

def test_a_file_system_without_locks(src, model, tmp_path, monkeypatch):
    fcntl = pytest.importorskip('fcntl')
    def flock(*_): raise OSError(errno.ENOLCK, 'No locks available')
    monkeypatch.setattr(fcntl, 'flock', flock)
    assert len(upscale_folder(src, tmp_path/'out', model=model).done)==5

def test_killed_while_replacing_an_older_result(src, model, tmp_path, monkeypatch):
    "Between ledger and rename: the older result is still ours."
    out = tmp_path/'out'
    upscale_folder(src, out, model=model)
    class Killed(BaseException): pass
    def enter(self, *args):
        real(self, *args)
        raise Killed
    real = Ledger.enter
    with monkeypatch.context() as m:
        m.setattr(Ledger, 'enter', enter)
        with pytest.raises(Killed): upscale_folder(src, out, model=model, scale=3)
    r = upscale_folder(src, out, model=model, scale=3)
    assert not r.failed and len(r.done)==5

def test_disk_full(src, model, tmp_path, monkeypatch):
    "The run ends, says so, leaves nothing half-written, and goes on when there is room."
    real,n = folders._store,0
    def full(*a):
        nonlocal n
        n += 1
        if n>2: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*a)
    monkeypatch.setattr(folders, '_store', full)
    r = upscale_folder(src, tmp_path/'out', model=model)
    assert len(r.done)==2 and 'No space left' in r.stopped and not parts(tmp_path/'out')
    monkeypatch.undo()
    r = upscale_folder(src, tmp_path/'out', model=model)
    assert (len(r.done),len(r.skipped),r.failed)==(3,2,[])

@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no device that is always full')
def test_disk_full_in_the_middle_of_a_file(src, model, tmp_path, monkeypatch):
    real = open
    monkeypatch.setattr(folders, 'open', lambda p, *a: real('/dev/full', *a) if str(p).endswith('.part') else real(p, *a), raising=False)
    r = upscale_folder(src, tmp_path/'out', model=model)
    assert not r.done and r.stopped and not pictures(tmp_path/'out') and not parts(tmp_path/'out')

@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid()==0, reason='to root no folder is read-only')
def test_read_only_folder(src, model, tmp_path):
    (tmp_path/'out').mkdir()
    (tmp_path/'out').chmod(0o500)
    with pytest.raises(OSError): upscale_folder(src, tmp_path/'out', model=model)

def test_read_only_file_system(src, model, tmp_path, monkeypatch):
    opened = os.open
    def read_only(path, flags, *a, **k):
        if flags&os.O_CREAT and str(path).endswith('.part'): raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, *a, **k)
    monkeypatch.setattr(os, 'open', read_only)
    r = upscale_folder(src, tmp_path/'out', model=model)
    assert not r.done and r.stopped and "can't be written: Read-only" in r.failed[0][1]

def test_a_file_vanishes(src, model, tmp_path):
    def progress(n, total, job): (src/'3.png').unlink(missing_ok=True)
    r = upscale_folder(src, tmp_path/'out', model=model, progress=progress)
    assert len(r.done)==4 and len(r.failed)==1 and '3.png' in r.failed[0][1]

def test_one_run_at_a_time(src, model, tmp_path):
    def progress(n, total, job):
        with pytest.raises(ValueError, match='another run'): upscale_folder(src, tmp_path/'out', model=model)
        seen.append(n)
    seen = []
    upscale_folder(src, tmp_path/'out', model=model, progress=progress)
    assert seen==[1,2,3,4,5]

def test_cancelled_by_the_callback(src, model, tmp_path):
    class Enough(Exception): pass
    def progress(n, total, job):
        if n==2: raise Enough
    with pytest.raises(Enough): upscale_folder(src, tmp_path/'out', model=model, progress=progress)
    n = len(pictures(tmp_path/'out'))
    assert 2<=n<5
    r = upscale_folder(src, tmp_path/'out', model=model)
    assert (len(r.done),len(r.skipped))==(5-n,n)

def test_done_is_what_agrees_in_content(src, model, tmp_path):
    out = tmp_path/'out'
    upscale_folder(src, out, model=model)
    os.utime(src/'0.png', (1,1)) # another time, the same content: done
    b = (src/'1.png').read_bytes()
    (src/'1.png').write_bytes((src/'2.png').read_bytes())
    t = os.stat(src/'2.png'); os.utime(src/'1.png', (t.st_atime,t.st_mtime)) # another content, whatever the time: not done
    r = upscale_folder(src, out, model=model)
    assert [p.name for p in r.done]==['1.png'] and len(r.skipped)==4
    save_weights(Generator(width=4, depth=1), model) # other weights under the same name
    assert len(upscale_folder(src, out, model=model).done)==5

def test_an_edited_result_is_not_replaced(src, model, tmp_path):
    out = tmp_path/'out'
    upscale_folder(src, out, model=model)
    Image.new('RGB', (5,5)).save(out/'0.png')
    r = upscale_folder(src, out, model=model)
    assert 'was not made by sr_upscale' in r.failed[0][1] and read_image(out/'0.png').size==(5,5)
    assert len(upscale_folder(src, out, model=model, overwrite=True).done)==5

def test_a_damaged_ledger_costs_only_time(src, model, tmp_path):
    out = tmp_path/'out'
    upscale_folder(src, out, model=model)
    l = out/LEDGER
    lines = l.read_bytes().splitlines()
    l.write_bytes(b'\n'.join([b'{"dst": 1', b'null', b'[]', b'\xff', *lines[1:]])[:-10])
    r = upscale_folder(src, out, model=model, overwrite=True)
    assert len(r.done)==5
    assert len(upscale_folder(src, out, model=model).skipped)==5

def test_results_inside_the_folder_are_not_pictures_to_do(src, model):
    for _ in range(2): r = upscale_folder(src, src/'big', recursive=True, model=model)
    assert len(r.skipped)==5 and not r.done

def test_hidden_files_and_others_are_left_alone(src, model, tmp_path):
    (src/'.hidden.png').write_text('x'); (src/'notes.txt').write_text('x'); (src/'.git').mkdir(); (src/'.git'/'a.png').write_text('x')
    assert len(plan(src, tmp_path/'out', recursive=True))==5

@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no named pipes')
def test_what_only_has_the_name_of_a_picture(src, model, tmp_path):
    "A pipe once kept the run waiting for ever."
    os.mkfifo(src/'pipe.png')
    (src/'folder.png').mkdir()
    (src/'broken.png').symlink_to('nowhere')
    r = upscale_folder(src, tmp_path/'out', model=model)
    assert len(r.done)==5 and r.failed==[(src/'broken.png', f"{src/'broken.png'} can't be read: No such file or directory"), (src/'pipe.png', f"{src/'pipe.png'} is not a regular file")]

def test_a_defect_in_one_does_not_end_the_run(src, model, tmp_path, monkeypatch):
    real = folders.upscale_picture
    def broken(pic, *a, **k):
        if pic.a[0,0,0]==read_image(src/'2.png').a[0,0,0]: raise RuntimeError('broken')
        return real(pic, *a, **k)
    monkeypatch.setattr(folders, 'upscale_picture', broken)
    r = upscale_folder(src, tmp_path/'out', model=model)
    assert len(r.done)==4 and r.failed==[(src/'2.png', f"{src/'2.png'}: RuntimeError: broken")]

def test_results_beside_their_pictures_are_no_pictures(src, model):
    "The same command again goes on with what is left, and does not enlarge what it made."
    for format in (None,'png'):
        upscale_folder(src, src, name='{stem}_x2', format=format, model=model)
        r = upscale_folder(src, src, name='{stem}_x2', format=format, model=model)
        assert not r.failed and not r.done and len(r.skipped)==5 and len(list(src.glob('*.png')))==10

def test_no_result_takes_the_place_of_another_picture(src, model):
    "It was advised to overwrite, and the picture was gone."
    Image.new('RGB', (5,5)).save(src/'0_x2.png') # not made by a run
    for kw in ({}, dict(overwrite=True)):
        with pytest.raises(ValueError, match='0.png would become .*0_x2.png, which is a picture to enlarge itself'): upscale_folder(src, src, name='{stem}_x2', model=model, **kw)
    assert read_image(src/'0_x2.png').size==(5,5)

def test_results_of_other_runs_are_no_pictures(src, model, tmp_path):
    "In a folder of the pictures or beside them; in a folder of their own they are what is meant."
    (src/'sub').mkdir()
    (src/'0.png').rename(src/'sub'/'0.png')
    upscale_folder(src, src/'x2', recursive=True, model=model)
    upscale_folder(src/'sub', src/'sub', name='{stem}_x2', model=model)
    def planned(src, **kw): return [j.src.relative_to(src).as_posix() for j in plan(src, tmp_path/'out', **kw)]
    assert planned(src, recursive=True)==['1.png','2.png','3.png','4.png','sub/0.png']
    assert planned(src/'sub')==['0.png']
    assert planned(src/'x2', recursive=True)==['1.png','2.png','3.png','4.png','sub/0.png']
    Image.new('RGB', (5,5)).save(src/'x2'/'new.png') # not made by a run
    assert 'x2/new.png' in planned(src, recursive=True)

def test_an_empty_file_is_told_so(src, model, tmp_path):
    (src/'empty.jpg').touch()
    r = upscale_folder(src, tmp_path/'out', model=model)
    (path,why), = r.failed
    assert path==src/'empty.jpg' and 'is empty; give a PNG' in why and len(r.done)==5

def test_a_number_is_the_same_however_it_is_written(src, model, tmp_path):
    upscale_folder(src, tmp_path/'out', model=model, scale=2, strength=1)
    r = upscale_folder(src, tmp_path/'out', model=model, scale=np.float32(2.), strength=1.)
    assert not r.done and len(r.skipped)==5

def test_another_kind_of_network_is_other_work():
    class Mine(Generator): pass
    g,m = Generator(width=4, depth=1),Mine(width=4, depth=1)
    m.load_state_dict(g.state_dict())
    assert Work(model=g).key()!=Work(model=m).key()

@pytest.mark.parametrize('name', ['{stem.x}','{stem[a]}','{}','{nothing}'])
def test_names_that_make_no_sense(src, tmp_path, name):
    with pytest.raises(ValueError, match='makes no sense'): plan(src, tmp_path/'out', name=name)

def test_what_is_left_out_is_told(src, tmp_path):
    for n in ('a.heic','b.HEIC','c.dng','notes.txt','.hidden.heic'): (src/n).touch()
    with pytest.warns(UserWarning, match=r'3 photographs in formats that can.t be read \(\.dng, \.heic\) are left out'): assert len(plan(src, tmp_path/'out'))==5

@pytest.mark.skipif(sys.platform=='win32' or os.geteuid()==0, reason='root may look into all folders')
def test_closed_folders_are_told(src, tmp_path):
    (src/'closed').mkdir(mode=0)
    try:
        with pytest.warns(UserWarning, match="closed can't be looked into"): assert len(plan(src, tmp_path/'out', recursive=True))==5
    finally: (src/'closed').chmod(0o700)

def test_a_width_alone(src, model, tmp_path):
    r = upscale_folder(src, tmp_path/'out', model=model, size=(45,None), name='{stem}_{scale}')
    assert len(r.done)==5 and {read_image(p).size for p in r.done}=={(45,30)} and (tmp_path/'out'/'0_45x.png').exists()
    assert len(upscale_folder(src, tmp_path/'out', model=model, size=[45,None], name='{stem}_{scale}').skipped)==5
