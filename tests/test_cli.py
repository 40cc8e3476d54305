"`sr_upscale` as a process: what it says, its exit code, what it leaves behind."
import signal, subprocess, sys, time
import numpy as np, pytest
from PIL import Image
from sr_fastai.cli import sr_upscale
from sr_fastai.models import Generator
from sr_fastai.weights import save_weights

@pytest.fixture(scope='module')
def model(tmp_path_factory): return save_weights(Generator(width=4, depth=1), tmp_path_factory.mktemp('w')/'m.safetensors')

@pytest.fixture
def photo(tmp_path):
    p = tmp_path/'photo.jpg'
    Image.fromarray(np.random.default_rng(42).integers(0, 256, (40,60,3), dtype=np.uint8)).save(p)
    return p

def process(*args): return subprocess.run([sys.executable, '-m', 'sr_fastai.cli', *map(str, args)], capture_output=True, text=True, timeout=60)

def refused(capfd, *args):
    code = sr_upscale([str(a) for a in args])
    o,e = capfd.readouterr()
    assert code==2 and not o and e.startswith('sr_upscale: ') and e.count('\n')==1 and 'Traceback' not in e
    return e

def test_process(photo, model):
    r = process(photo, '--model', model)
    assert (r.returncode, r.stderr)==(0, ''), r.stderr
    assert r.stdout.startswith(str(photo.with_name('photo_x2.jpg')))
    with Image.open(photo.with_name('photo_x2.jpg')) as im: assert (im.size, im.format)==((120,80), 'JPEG')

def test_process_fails_in_one_sentence(tmp_path):
    r = process(tmp_path/'none.jpg')
    assert (r.returncode, r.stdout, r.stderr)==(2, '', f"sr_upscale: {tmp_path/'none.jpg'}: no such file or folder\n")

@pytest.mark.parametrize('quality', [0,101,-3])
def test_a_quality_that_no_format_knows(photo, model, capfd, quality):
    "It is refused before a picture is read, and for a whole folder once."
    (photo.parent/'text.png').write_text('Dear diary')
    for src in (photo, photo.parent/'text.png', photo.parent):
        assert refused(capfd, src, '--model', model, '-q', quality)==f'sr_upscale: quality must be from 1 to 100, not {quality}\n'
    assert len(list(photo.parent.iterdir()))==2

@pytest.mark.parametrize('n', ['nan','inf','many'])
def test_a_limit_that_is_no_number(photo, capfd, n):
    with pytest.raises(SystemExit) as e: sr_upscale([str(photo), '--max-pixels', n])
    assert e.value.code==2 and f"'{n}' is no number of megapixels" in capfd.readouterr().err

def test_help_and_missing_file_need_no_torch(tmp_path):
    code = "import sys; from sr_fastai.cli import sr_upscale; sr_upscale([sys.argv[1]]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, '-c', code, str(tmp_path/'none.jpg')], check=True, capture_output=True, timeout=60)

def test_the_start_costs_no_compiler(photo, model):
    "Loading weights once drew random values on the meta device, for which torch imports its compiler: 3 s."
    code = "import sys; from sr_fastai.cli import sr_upscale; assert sr_upscale(sys.argv[1:])==0; assert not {'torch._dynamo','sympy','tifffile','imagecodecs','fastai'} & {*sys.modules}"
    r = subprocess.run([sys.executable, '-c', code, str(photo), '-m', str(model)], capture_output=True, text=True, timeout=60)
    assert r.returncode==0, r.stderr

def test_bad_input(capfd, tmp_path, photo, model):
    (tmp_path/'text.png').write_text('Dear diary')
    (tmp_path/'empty.png').touch()
    (tmp_path/'short.jpg').write_bytes(photo.read_bytes()[:-400])
    (tmp_path/'folder').mkdir()
    before = sorted(tmp_path.rglob('*'))
    assert 'not a picture' in refused(capfd, tmp_path/'text.png', '-m', model)
    assert 'is empty' in refused(capfd, tmp_path/'empty.png', '-m', model)
    assert 'damaged or cut short' in refused(capfd, tmp_path/'short.jpg', '-m', model)
    assert 'no pictures in' in refused(capfd, tmp_path/'folder', '-m', model)
    assert 'no such file' in refused(capfd, tmp_path/'none.jpg', '-m', model)
    assert 'no such weights' in refused(capfd, photo, '-m', tmp_path/'none.safetensors')
    assert 'no weights are called' in refused(capfd, photo, '-m', 'nobody')
    assert "can't be written as .xyz" in refused(capfd, photo, '-m', model, '-o', tmp_path/'a.xyz')
    assert 'is the picture itself' in refused(capfd, photo, '-m', model, '-o', photo)
    assert '--max-pixels' in refused(capfd, photo, '-m', model, '--max-pixels', '0.001')
    assert 'nowhere' in refused(capfd, photo, '-m', model, '--device', 'nowhere')
    assert 'tile must be' in refused(capfd, photo, '-m', model, '--tile', '0')
    assert 'say what to enlarge' in refused(capfd, '')
    assert 'for a folder' in refused(capfd, photo, '--format', 'webp')
    assert "can't be made a folder" in refused(capfd, tmp_path, '-o', photo, '-m', model)
    assert 'scale must be' in refused(capfd, photo, '-m', model, '-s', '0')
    assert sorted(tmp_path.rglob('*'))==before

def test_reference(capfd, tmp_path, model):
    "A nearest-neighbour net on a picture whose original is that: no error at all; bicubic has one."
    a = np.random.default_rng(0).integers(0, 256, (20,30,3), dtype=np.uint8)
    small,hr = tmp_path/'a.png',tmp_path/'hr.png'
    Image.fromarray(a).save(small)
    Image.fromarray(a.repeat(2, 0).repeat(2, 1)).save(hr)
    net = Generator(width=4, depth=1)
    net.last.weight.data.zero_()
    nearest = save_weights(net, tmp_path/'nearest.safetensors')
    assert sr_upscale([str(small), '--model', str(nearest), '--reference', str(hr)])==0
    o = capfd.readouterr().out.splitlines()[1]
    assert 'PSNR inf dB, SSIM 1.0000; bicubic: PSNR ' in o and float(o.split('bicubic: PSNR ')[1].split()[0])<30
    assert '20x30' not in refused(capfd, small, '--reference', tmp_path/'none.png')
    assert 'for one picture' in refused(capfd, tmp_path, '--reference', hr)

def test_reference_of_a_grey_picture(capfd, tmp_path, model):
    "On its own values, as `sr_bench` has it, not through Y, which squeezes 0..255 to 16..235."
    from sr_fastai.resample import bicubic_down, resize
    hr = resize(np.random.default_rng(0).integers(0, 256, (9,9), dtype=np.uint8), (36,40))
    for n,a in (('a',bicubic_down(hr, 2)),('hr',hr)): Image.fromarray(a).save(tmp_path/f'{n}.png')
    assert sr_upscale([str(tmp_path/'a.png'), '--model', str(model), '--reference', str(tmp_path/'hr.png')])==0
    err = resize(bicubic_down(hr, 2), hr.shape).astype(float)-hr
    assert f"bicubic: PSNR {10*np.log10(255**2/np.square(err[2:-2,2:-2]).mean()):.2f} dB" in capfd.readouterr().out

def test_output_names(capfd, tmp_path, photo, model):
    def run(*args):
        assert sr_upscale([str(a) for a in (photo, '-m', model, *args)])==0
        return capfd.readouterr()[0].split('  ')[0]
    (tmp_path/'there').mkdir()
    assert run('-s', 1.5)==str(tmp_path/'photo_x1.5.jpg')
    assert run('-o', tmp_path/'there')==str(tmp_path/'there'/'photo_x2.jpg')
    assert run('-o', f"{tmp_path/'new'}/")==str(tmp_path/'new'/'photo_x2.jpg')
    assert run('-o', tmp_path/'new2'/'a.png', '--size', '33x44')==str(tmp_path/'new2'/'a.png')
    with Image.open(tmp_path/'new2'/'a.png') as im: assert (im.size, im.format)==((33,44), 'PNG')

def test_first_frame_is_said(capfd, tmp_path, model):
    frames = [Image.new('RGB', (8,8), c) for c in ('red','green','blue')]
    frames[0].save(tmp_path/'a.gif', save_all=True, append_images=frames[1:])
    assert sr_upscale([str(tmp_path/'a.gif'), '-m', str(model)])==0
    assert 'only the first frame' in capfd.readouterr()[1]

def test_folder(capfd, tmp_path, model):
    (tmp_path/'in'/'日本').mkdir(parents=True)
    for p in ('a.png','日本/ü.png'): Image.new('RGB', (8,8), 'red').save(tmp_path/'in'/p)
    args = [str(o) for o in (tmp_path/'in', '-m', model, '-r', '--name', '{stem}_x{scale}', '--format', 'webp')]
    assert sr_upscale([*args, '--dry-run'])==0
    assert capfd.readouterr()[0].count(' -> ')==2 and not (tmp_path/'in_x2').exists()
    assert sr_upscale(args)==0
    assert '2 done, 0 done before, 0 failed' in capfd.readouterr()[0]
    assert (tmp_path/'in_x2'/'日本'/'ü_x2.webp').is_file()
    (tmp_path/'in'/'b.png').write_text('Dear diary')
    assert sr_upscale(args)==1
    o,e = capfd.readouterr()
    assert '0 done, 2 done before, 1 failed' in o and e.count('\n')==1 and 'b.png' in e

@pytest.mark.skipif(sys.platform=='win32', reason='signals')
def test_interrupted(tmp_path, model):
    "Ctrl-C in the middle: exit code 130, what is done stays, nothing is half-written, and the rest follows."
    (tmp_path/'in').mkdir()
    for i in range(30): Image.fromarray(np.random.default_rng(i).integers(0, 256, (300,300,3), dtype=np.uint8)).save(tmp_path/'in'/f'{i}.png')
    args = [sys.executable, '-m', 'sr_fastai.cli', str(tmp_path/'in'), '-o', str(tmp_path/'out'), '-m', str(model)]
    p = subprocess.Popen(args, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if len(list((tmp_path/'out').glob('*.png')))>1: break
        time.sleep(.1)
    p.send_signal(signal.SIGINT)
    e = p.communicate(timeout=60)[1]
    done = len(list((tmp_path/'out').glob('*.png')))
    assert p.returncode==130 and e=='sr_upscale: stopped; nothing is half-written; the same command goes on from here\n'
    assert 1<done<30
    r = subprocess.run(args, capture_output=True, text=True, timeout=200)
    assert r.returncode==0 and f'{30-done} done, {done} done before, 0 failed' in r.stdout
    assert not list((tmp_path/'out').glob('.*.part'))

def test_version(capsys):
    with pytest.raises(SystemExit): sr_upscale(['--version'])
    import sr_fastai
    assert capsys.readouterr().out.strip()==f'sr_fastai {sr_fastai.__version__}'

def test_several_pictures(photo, model, tmp_path, capsys):
    other,bad = tmp_path/'other.png',tmp_path/'bad.png'
    Image.new('RGB', (8,8)).save(other)
    bad.write_bytes(b'no picture')
    assert sr_upscale([*map(str, (photo,bad,other)), '-m', str(model)])==1
    out,err = capsys.readouterr()
    assert out.count('\n')==2 and err.count('\n')==1 and 'bad.png' in err
    assert (tmp_path/'photo_x2.jpg').exists() and (tmp_path/'other_x2.png').exists()
    assert sr_upscale([*map(str, (photo,other)), '-m', str(model), '-o', str(tmp_path/'new')])==0
    assert {o.name for o in (tmp_path/'new').iterdir()}=={'photo_x2.jpg','other_x2.png'}

def test_several_names_that_make_no_sense(photo, tmp_path, capfd):
    (tmp_path/'d').mkdir()
    twin = tmp_path/'d'/photo.name
    twin.write_bytes(photo.read_bytes())
    (tmp_path/'file').touch()
    assert 'would both become' in refused(capfd, photo, twin, '-o', tmp_path/'out')
    assert 'a folder among several' in refused(capfd, photo, tmp_path/'d')
    assert 'need a folder' in refused(capfd, photo, twin, '-o', tmp_path/'file')
    assert 'no such file' in refused(capfd, photo, tmp_path/'nothing.png')
    assert 'for several' in refused(capfd, photo, twin, '--reference', photo)
    assert not (tmp_path/'out').exists()

def test_no_result_takes_the_place_of_another_picture_that_is_named(photo, model, capfd):
    "As `sr_upscale *.jpg` names them when it is run again."
    other = photo.with_name('photo_x2.jpg')
    Image.new('RGB', (20,20)).save(other)
    was = other.read_bytes()
    assert 'photo.jpg would become' in refused(capfd, photo, other, '-m', model) and other.read_bytes()==was

def test_overwrite_is_for_folders(photo, capfd): assert '--overwrite' in refused(capfd, photo, '--overwrite')

def test_without_a_terminal(photo, model, monkeypatch):
    "As daemons run it."
    monkeypatch.setattr(sys, 'stderr', None)
    assert sr_upscale([str(photo), '-m', str(model)])==0

def test_a_width_alone(photo, model, capsys):
    for size,name,want in (('90x','photo_90x.jpg',(90,60)), ('x20','photo_x20.jpg',(30,20))):
        assert sr_upscale([str(photo), '-m', str(model), '--size', size])==0
        with Image.open(photo.with_name(name)) as im: assert im.size==want

def test_an_address_is_no_file(tmp_path, capfd): assert 'no such file' in refused(capfd, 'https://example.org/a.png')

def test_a_limit_below_nothing_is_none(photo, capsys):
    with pytest.raises(SystemExit): sr_upscale([str(photo), '--max-pixels', '-5'])
    assert 'no number of megapixels' in capsys.readouterr().err
