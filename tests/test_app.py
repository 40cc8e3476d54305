"The page to try it on: what it makes of pictures, its server, and the page itself in a headless Chromium."
import http.client, os, re, shutil, signal, socket, subprocess, sys, tempfile, threading, time, zipfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit
import numpy as np, pytest, torch
from PIL import Image
from sr_fastai import app
from sr_fastai.app import *
from sr_fastai.engine import upscale_file
from sr_fastai.folders import Work
from sr_fastai.imageio import Picture, write_image
from sr_fastai.models import Generator
from sr_fastai.weights import save_weights

how = dict(device='cpu', tile=32) # many tiles: Stop is heard after each

def noise(*shape, seed=42, dtype=np.uint8): return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)

def tiny(seed):
    torch.manual_seed(seed)
    return Generator(width=4, depth=1)

@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    d = tmp_path_factory.mktemp('w')
    save_weights(tiny(1), d/'mine.safetensors')
    save_weights(tiny(2), d/'gan.safetensors', start=tiny(1))
    return d

@pytest.fixture
def model(weights): return str(weights/'mine.safetensors')

@pytest.fixture
def photo(tmp_path):
    p,exif = tmp_path/'photo.jpg',Image.Exif()
    exif[0x010f] = 'a camera'
    Image.fromarray(noise(40,60,3)).save(p, exif=exif, dpi=(300,300))
    return p

def pictures(d):
    "Files of several kinds."
    Image.fromarray(noise(20,30,4)).save(d/'clear.png')
    write_image(Picture(noise(20,30,3, dtype=np.uint16), 'RGB'), d/'deep.png')
    write_image(Picture(noise(20,30,3).astype(np.float32)/255, 'RGB'), d/'floats.tif')
    write_image(Picture(noise(20,30,4), 'CMYK'), d/'ink.jpg')
    Image.fromarray(noise(20,30)).convert('P').save(d/'palette.gif')
    return sorted(d.iterdir())

# What is done to pictures

def test_results_are_the_files_that_the_command_writes(model, photo, tmp_path):
    (tmp_path/'in').mkdir()
    for p in [photo, *pictures(tmp_path/'in')]:
        got = enlarge(p, Path(tempfile.mkdtemp(dir=tmp_path)), Work(model=model, how=how))
        upscale_file(p, tmp_path/f'one{p.suffix}', model=model, **how)
        assert Path(got.path).name==f'{p.stem}_x2{p.suffix}'
        assert Path(got.path).read_bytes()==(tmp_path/f'one{p.suffix}').read_bytes()
        with Image.open(got.before) as a, Image.open(got.after) as b: assert a.size==b.size==((120,80) if p==photo else (60,40)) and a.format==b.format=='JPEG' and not b.getexif()

def test_previews_show_what_they_say(model, tmp_path):
    a = np.zeros((32,48,4), np.uint8)
    a[...,0],a[:,24:,3] = 200,255
    Image.fromarray(a).save(tmp_path/'half.png')
    got = enlarge(tmp_path/'half.png', tmp_path, Work(model=model, how=how))
    before = np.asarray(Image.open(got.before)).astype(int)
    # the clear half is white, the other as it was
    assert abs(before[:,:40]-255).max()<8 and abs(before[:,56:]-(200,0,0)).max()<12

@pytest.mark.parametrize('size', [(600,400), (12000,4)])
def test_large_previews_are_smaller(model, tmp_path, monkeypatch, size):
    monkeypatch.setattr(app, 'PREVIEW', 2**16)
    Image.new('RGB', size, 'teal').save(tmp_path/'a.png')
    got = enlarge(tmp_path/'a.png', tmp_path, Work(model=model, how=dict(how, tile='auto')))
    with Image.open(got.path) as im: assert im.size==(2*size[0],2*size[1])
    with Image.open(got.before) as a, Image.open(got.after) as b: assert a.size==b.size and np.prod(a.size)<=2**16 and max(a.size)<=app.SIDE
    assert re.search(r'; shown here at \d+% of its size$', got.line)

def test_bad_files_are_told_and_the_others_done(model, photo, tmp_path):
    d,out = tmp_path/'in',tmp_path/'out'
    d.mkdir(), out.mkdir()
    (d/'note.txt').write_text('not a picture')
    (d/'empty.png').touch()
    (d/'cut.jpg').write_bytes(photo.read_bytes()[:400])
    Image.new('RGB', (100,100)).save(d/'large.png')
    shutil.copy(photo, d/'<b>odd</b>.jpg'.replace('/', '_'))
    done,bad = enlarge_all(sorted(d.iterdir()), out, Work(model=model, max_pixels=5000, how=how))
    assert [Path(o.path).name for o in done]==['<b>odd<_b>_x2.jpg']
    assert len(bad)==4 and not [s for s in bad if str(tmp_path) in s or '\n' in s or 'Error' in s]
    assert [s.split()[0] for s in bad]==['cut.jpg','empty.png','large.png','note.txt']

def test_an_error_of_another_kind_is_told_too(photo, tmp_path):
    def broken(*_): raise RuntimeError('the device went away')
    work = SimpleNamespace(scale=2, read=broken)
    assert enlarge_all([photo], tmp_path, work)==([], ['photo.jpg: RuntimeError: the device went away'])

@pytest.mark.parametrize('name', ['picture','picture.dat'])
def test_pictures_without_a_name_of_their_kind(model, tmp_path, name):
    Image.fromarray(noise(20,30,3)).save(tmp_path/name, 'PNG')
    got = enlarge(tmp_path/name, tmp_path, Work(model=model, how=how))
    assert Path(got.path).name==f'{name}_x2.png'
    with Image.open(got.path) as im: assert (im.format, im.size)==('PNG', (60,40))

def test_stopped(model, photo, tmp_path):
    n = 0
    def step(part):
        nonlocal n
        n += 1
        if n==6: raise Stopped
    done,bad = enlarge_all([photo]*3, tmp_path, Work(model=model, how=dict(how, progress=step)))
    assert len(done)==1 and bad==['stopped; 1 of 3 done'] and Path(done[0].path).exists()
    def never(*_): raise Stopped
    assert enlarge_all([photo], tmp_path, Work(model=model), never)==([], ['stopped; 0 of 1 done'])

def test_zip_keeps_all(tmp_path):
    done = []
    for i,n in enumerate(('a.png','b.png','a.png')):
        (tmp_path/str(i)).mkdir()
        (tmp_path/str(i)/n).write_bytes(bytes([i]))
        done.append(Shown(str(tmp_path/str(i)/n), '', '', ''))
    with zipfile.ZipFile(zipped(done, tmp_path/'all.zip')) as z: assert {n:z.read(n) for n in z.namelist()}=={'1/a.png':b'\0', 'b.png':b'\1', '3/a.png':b'\2'}

# The command

def refused(capfd, *args):
    code = sr_app([str(a) for a in args])
    o,e = capfd.readouterr()
    assert code==2 and not o and e.startswith('sr_app: ') and e.count('\n')==1
    return e

@pytest.fixture
def handlers():
    was = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, was)

def test_no_port(capfd):
    with pytest.raises(SystemExit, match='2'): sr_app(['--port', '70000'])
    assert "'70000' is no port" in capfd.readouterr().err

def test_what_cannot_be_served(weights, tmp_path, capfd, monkeypatch, handlers):
    with socket.create_server(('127.0.0.1',0)) as s:
        port = s.getsockname()[1]
        assert f"127.0.0.1:{port} can't be listened on" in refused(capfd, '--port', port, '--no-browser')
    (tmp_path/'bad.safetensors').write_bytes(b'nothing')
    assert 'no safetensors file, or it is damaged' in refused(capfd, tmp_path/'bad.safetensors', '--port', 0, '--no-browser')
    assert 'no such weights file' in refused(capfd, tmp_path/'none.safetensors', '--port', 0, '--no-browser')
    monkeypatch.setitem(sys.modules, 'gradio', None)
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    assert 'pip install "sr_fastai[app]"' in refused(capfd, '--port', 0, '--no-browser')
    assert not list(tmp_path.glob('sr_app_*'))

@pytest.mark.skipif(sys.platform=='win32', reason='signals')
@pytest.mark.parametrize('sig', ['SIGINT',pytest.param('SIGTERM', marks=pytest.mark.slow)])
def test_process_leaves_nothing_behind(tmp_path, sig):
    pytest.importorskip('gradio')
    p = subprocess.Popen([sys.executable, '-m', 'sr_fastai.app', '--port', '0', '--no-browser'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, 'TMPDIR':str(tmp_path)})
    try:
        line = p.stdout.readline()
        assert re.fullmatch(r'http://127\.0\.0\.1:\d+/  Ctrl-C ends it\n', line), line+p.stderr.read()
        assert list(tmp_path.glob('sr_app_*'))
        p.send_signal(getattr(signal, sig))
        assert p.communicate(timeout=120)==('', 'sr_app: stopped; nothing is left behind\n') and p.returncode==130
        assert not list(tmp_path.glob('sr_app_*'))
    finally: p.kill()

# The server

asked = [] # whom this process asks for something
def _audit(event, args):
    if event in ('socket.connect','socket.connect_ex') and isinstance(args[1], tuple): asked.append(args[1][0])
    elif event=='socket.getaddrinfo': asked.append(args[0])

@pytest.fixture(scope='module')
def served(weights):
    "A page's address and its folder."
    pytest.importorskip('gradio')
    sys.addaudithook(_audit)
    env = dict(os.environ)
    with serving([weights/'mine.safetensors',weights/'gan.safetensors'], port=0, max_pixels=10**6, **how) as url:
        folder = Path(os.environ['GRADIO_TEMP_DIR']).parent
        yield SimpleNamespace(url=url, folder=folder, at=urlsplit(url))
    assert dict(os.environ)==env and not folder.exists()
    with pytest.raises(OSError): socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), 2)
    assert asked and {*asked} <= {*LOOPBACK, '127.0.0.2', None}

def head(served, host):
    c = http.client.HTTPConnection(served.at.hostname, served.at.port, timeout=20)
    c.putrequest('GET', '/', skip_host=True)
    c.putheader('Host', host)
    c.endheaders()
    r = c.getresponse()
    r.read()
    c.close()
    return r

def test_for_this_machine_only(served):
    assert served.at.hostname=='127.0.0.1'
    # one that listens on all addresses would answer here
    if sys.platform=='linux':
        with pytest.raises(ConnectionRefusedError): socket.create_connection(('127.0.0.2',served.at.port), 5)
    assert served.folder.stat().st_mode&0o077==0 or sys.platform=='win32'

def test_other_names_that_lead_here_are_refused(served):
    for host in ('127.0.0.1','localhost'): assert head(served, f'{host}:{served.at.port}').status==200
    for host in ('evil.example','evil.example:80','127.0.0.1.evil.example',''): assert head(served, host).status==400

def test_browser_is_told_to_stay_here(served):
    csp = head(served, 'localhost').headers['Content-Security-Policy']
    assert "default-src 'self'" in csp and 'http' not in csp and '*' not in csp

@pytest.mark.skipif(not socket.has_ipv6, reason='no IPv6')
def test_another_host(weights):
    pytest.importorskip('gradio')
    try: socket.create_server(('::1',0), family=socket.AF_INET6).close()
    except OSError: pytest.skip('no ::1')
    with serving(host='::1', port=0, max_pixels=None) as url:
        at = urlsplit(url)
        assert at.hostname=='::1' and head(SimpleNamespace(at=at), f'[::1]:{at.port}').status==200

# The page

@pytest.fixture(scope='module')
def chromium():
    api = pytest.importorskip('playwright.sync_api')
    path = shutil.which('chromium') or shutil.which('google-chrome')
    if not path: pytest.skip('no Chromium')
    with api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=path, args='--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync'.split())
        yield b
        b.close()

@pytest.fixture
def page(chromium, served):
    "The page, open. It asks nobody but this machine, and nothing fails in it."
    asked,wrong = [],[]
    ctx = chromium.new_context(accept_downloads=True)
    pg = ctx.new_page()
    pg.set_default_timeout(30_000)
    pg.on('request', lambda r: asked.append(urlsplit(r.url)))
    pg.on('pageerror', lambda e: wrong.append(str(e)))
    pg.on('console', lambda m: m.type=='error' and wrong.append(m.text))
    pg.goto(served.url)
    yield pg
    ctx.close()
    assert not wrong
    assert asked and {u.netloc for u in asked if u.scheme not in ('data','blob')}=={served.at.netloc}

def button(page, name): return page.get_by_role('button', name=name, exact=True)

def begin(page, *files):
    page.set_input_files('input[type=file]', [str(f) for f in files])
    button(page, 'Enlarge').click()

def told(page):
    "Waits for the end; what the page says, by its kinds."
    page.wait_for_selector('[role=status] p')
    button(page, 'Enlarge').wait_for()
    return [page.locator(f'[role=status] p.{k}').all_inner_texts() for k in ('bad','good')]

def choose(page, label, option):
    page.get_by_label(label).click()
    page.get_by_role('option', name=option, exact=True).click()

def download(page, name, path):
    with page.expect_download() as d: button(page, f'Download {name}').click()
    d.value.save_as(path)
    return d.value.suggested_filename

def shown(page):
    "The two pictures under the slider, loaded."
    ims = page.get_by_test_id('imageslider-image')
    page.wait_for_function("() => [...document.querySelectorAll('[data-testid=imageslider-image]')].filter(o => o.complete && o.naturalWidth).length==2")
    return [ims.nth(i) for i in range(2)]

def test_upload_slider_download(page, photo, model, tmp_path):
    assert button(page, 'Enlarge').is_disabled() # nothing to enlarge yet
    choose(page, 'Model', 'mine.safetensors')
    begin(page, photo)
    bad,good = told(page)
    assert not bad and len(good)==1 and good[0].startswith('photo_x2.jpg: 60×40 → 120×80, ')
    before,after = shown(page)
    assert [o.evaluate('o => [o.naturalWidth,o.naturalHeight]') for o in (before,after)]==[[120,80]]*2
    assert download(page, 'photo_x2.jpg', tmp_path/'got.jpg')=='photo_x2.jpg'
    upscale_file(photo, tmp_path/'want.jpg', model=model, **how)
    assert (tmp_path/'got.jpg').read_bytes()==(tmp_path/'want.jpg').read_bytes()
    with Image.open(tmp_path/'got.jpg') as im: assert im.getexif()[0x010f]=='a camera' and im.info['dpi']==(300,300)
    # the slider follows the mouse, and the wheel zooms
    def cut(): return float(re.search(r'inset\(.*?([\d.]+)%\)', after.get_attribute('style'))[1])
    box,was = before.bounding_box(),cut()
    x,y = box['x']+box['width']/2,box['y']+box['height']/2
    page.mouse.move(x, y); page.mouse.down(); page.mouse.move(x-box['width']/4, y, steps=4); page.mouse.up()
    page.wait_for_timeout(100)
    assert was==pytest.approx(50, abs=1) and cut()==pytest.approx(25, abs=3)
    page.mouse.move(x, y)
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(500)
    assert before.bounding_box()['width']>box['width']

def test_several_and_a_bad_one(page, photo, model, tmp_path):
    Image.fromarray(noise(30,30,3, seed=1)).save(tmp_path/'second.png')
    (tmp_path/'bad.png').write_bytes(b'no <i>picture</i>')
    choose(page, 'Model', 'mine.safetensors')
    begin(page, photo, tmp_path/'bad.png', tmp_path/'second.png')
    bad,good = told(page)
    assert bad==['bad.png is not a picture that can be read, whatever its name says; give a PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF file']
    assert [o.split(':')[0] for o in good]==['photo_x2.jpg','second_x2.png']
    download(page, 'all 2 as a zip', tmp_path/'all.zip')
    with zipfile.ZipFile(tmp_path/'all.zip') as z:
        for p in (photo, tmp_path/'second.png'):
            name = f'{p.stem}_x2{p.suffix}'
            upscale_file(p, tmp_path/name, model=model, **how)
            assert z.read(name)==(tmp_path/name).read_bytes()
        assert len(z.namelist())==2
    # another result under the slider
    first = shown(page)[1].get_attribute('src')
    button(page, 'Thumbnail 2 of 2').click()
    button(page, 'Download second_x2.png').wait_for()
    page.wait_for_function("was => document.querySelectorAll('[data-testid=imageslider-image]')[1].src!=was", arg=first)
    assert shown(page)[1].evaluate('o => o.naturalWidth')==60

def test_nothing_but_a_bad_one(page, tmp_path):
    (tmp_path/'bad.jpg').write_bytes(b'\xff\xd8\xff\xe0 cut short')
    begin(page, tmp_path/'bad.jpg')
    bad,good = told(page)
    assert len(bad)==1 and bad[0].startswith('bad.jpg is damaged or cut short') and not good
    assert not page.get_by_role('button', name=re.compile('^Download ')).count() and not page.get_by_test_id('imageslider-image').count()

def test_strength_and_another_scale(page, photo, weights, tmp_path):
    assert not page.get_by_label('Strength').count()
    choose(page, 'Model', 'gan.safetensors')
    page.get_by_role('spinbutton', name='Strength').fill('0.5')
    page.get_by_role('spinbutton', name='Strength').press('Tab')
    page.get_by_label('other').check()
    page.get_by_label('Times larger').fill('1.5')
    begin(page, photo)
    bad,good = told(page)
    assert not bad and good[0].startswith('photo_x1.5.jpg: 60×40 → 90×60')
    download(page, 'photo_x1.5.jpg', tmp_path/'got.jpg')
    upscale_file(photo, tmp_path/'want.jpg', scale=1.5, model=weights/'gan.safetensors', strength=.5, **how)
    upscale_file(photo, tmp_path/'full.jpg', scale=1.5, model=weights/'gan.safetensors', **how)
    assert (tmp_path/'got.jpg').read_bytes()==(tmp_path/'want.jpg').read_bytes()!=(tmp_path/'full.jpg').read_bytes()

def test_stop_and_what_leaving_takes_away(page, served, tmp_path):
    Image.fromarray(noise(900,900,3)).save(tmp_path/'long.png') # minutes, with the shipped weights
    page.get_by_label('Ensemble').check()
    begin(page, tmp_path/'long.png')
    page.get_by_text(re.compile('long.png')).filter(has_text='%').first.wait_for() # progress
    button(page, 'Stop').click()
    assert told(page)==[['stopped; 0 of 1 done'],[]]
    mine, = [o for o in served.folder.iterdir() if o.name!='gradio' and list(o.iterdir())]
    # a tab that is closed ends its work
    begin(page, tmp_path/'long.png')
    page.get_by_text(re.compile('long.png')).filter(has_text='%').first.wait_for()
    page.close()
    end = time.time()+20
    while mine.exists() and time.time()<end: time.sleep(.1)
    assert not mine.exists()
