"`untar_div2k` against a local server with a miniature of DIV2K, and everything that servers, lines and archives do wrong."
import io, json, stat, threading, zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from sr_fastai import div2k as D
from sr_fastai.cache import sha256
from sr_fastai.div2k import *
from sr_fastai.resample import bicubic_down

def png(x):
    b = io.BytesIO()
    Image.fromarray(x).save(b, 'PNG')
    return b.getvalue()

def make_zip(entries):
    b = io.BytesIO()
    with zipfile.ZipFile(b, 'w') as z:
        for name,data in entries.items(): z.writestr(name, data)
    return b.getvalue()

@pytest.fixture(scope='module')
def archives():
    "DIV2K's archives by name, with two images each."
    ends = dict(mild='m', difficult='d')
    res = {}
    for split,nums in (('train',(1,2)), ('valid',(801,802))):
        hr = {n:np.random.default_rng(n).integers(0, 256, (48,64,3), dtype=np.uint8) for n in nums}
        res[f'DIV2K_{split}_HR.zip'] = make_zip({f'DIV2K_{split}_HR/{n:04d}.png':png(x) for n,x in hr.items()})
        for track,scales in TRACKS.items():
            for s in scales:
                folder = div2k_folders(s, track, split)[1]
                files = {}
                for n,x in hr.items():
                    tags = [ends.get(track, '')]
                    if track=='wild': tags = [f'w{i}' for i in range(1,5)] if split=='train' else ['w']
                    for t in tags: files[f'{folder}/{n:04d}x{s}{t}.png'] = png(bicubic_down(x, s))
                res[folder.replace('/','_')+'.zip'] = make_zip(files)
    assert set(res)==set(D._archives)
    return res

class Server:
    "Serves `files`; each request takes one of `faults` first: a status, ('drop', n), ('lie', n) about the length, or 'norange'."
    def __init__(self, files):
        self.files,self.faults,self.log = dict(files),[],[]
        server = self
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *a): pass
            def do_GET(self):
                fault = server.faults.pop(0) if server.faults else None
                server.log.append((self.path, self.headers.get('Range')))
                data = server.files.get(self.path.lstrip('/').split('/')[-1])
                if data is None: return self.send_error(404)
                if isinstance(fault, int): return self.send_error(fault)
                start = 0
                if (r := self.headers.get('Range')) and fault!='norange': start = int(r.removeprefix('bytes=').removesuffix('-'))
                if start>=len(data): return self.send_error(416)
                self.send_response(206 if start else 200)
                if start: self.send_header('Content-Range', f'bytes {start}-{len(data)-1}/{len(data)}')
                n = len(data)-start
                self.send_header('Content-Length', str(fault[1] if isinstance(fault, tuple) and fault[0]=='lie' else n))
                self.end_headers()
                self.wfile.write(data[start:][:fault[1] if isinstance(fault, tuple) and fault[0]=='drop' else n])
        self.http = ThreadingHTTPServer(('127.0.0.1',0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f'http://127.0.0.1:{self.http.server_port}/DIV2K'

@pytest.fixture
def server(archives):
    s = Server(archives)
    yield s
    s.http.shutdown()

@pytest.fixture
def get(server, tmp_path, monkeypatch):
    "`untar_div2k` from the server into a folder of its own, with no published sums and no waiting."
    monkeypatch.setattr(D, '_archives', {})
    monkeypatch.setattr(D, 'fastai_path', lambda k: tmp_path/k)
    monkeypatch.setattr(D.time, 'sleep', lambda s: None)
    return partial(untar_div2k, url=server.url)

def left(tmp_path): return sorted(p.name for p in tmp_path.rglob('*') if p.is_file() and not p.name.endswith(('.lock','.png','.json','LICENCE.txt')))

@pytest.mark.parametrize('scale,track', [(s,t) for t,ss in TRACKS.items() for s in ss])
def test_every_track(get, tmp_path, scale, track):
    path = get(scale, track)
    lrs = div2k_lr(path, scale, track)
    assert len(lrs)==(10 if track=='wild' else 4) and left(tmp_path)==[]
    for f in lrs: np.testing.assert_array_equal(np.array(Image.open(f)), bicubic_down(np.array(Image.open(div2k_hr(f))), scale))
    assert [len(o) for o in div2k_splitter(lrs)]==([8,2] if track=='wild' else [2,2])

def test_second_call_and_second_track_fetch_only_what_is_missing(get, server, capsys):
    get(2)
    assert 'academic research only' in capsys.readouterr().out
    n = len(server.log)
    get(2)
    assert len(server.log)==n==4
    get(3)
    assert [p for p,_ in server.log[n:]]==['/DIV2K/DIV2K_train_LR_bicubic_X3.zip','/DIV2K/DIV2K_valid_LR_bicubic_X3.zip']
    assert 'academic' not in capsys.readouterr().out # once is enough

def test_broken_connection_goes_on(get, server, archives):
    server.faults = [('drop',1000),('drop',500),503]
    path = get(2)
    size = len(archives['DIV2K_train_HR.zip'])
    assert [r for _,r in server.log[:4]]==[None,'bytes=1000-','bytes=1500-','bytes=1500-'] and size>1500
    assert len(div2k_lr(path, 2))==4

def test_server_that_cannot_resume(get, server):
    server.faults = [('drop',1000),'norange']
    assert len(div2k_lr(get(2), 2))==4

def test_line_that_never_comes_back(get, server, tmp_path):
    server.faults = [('drop',1000)]+[503]*5
    with pytest.raises(ConnectionError, match='503.*1,000 bytes are kept; call again'): get(2)
    assert left(tmp_path)==['DIV2K_train_HR.zip.part'] and not any((tmp_path/'data'/'DIV2K').iterdir())
    assert len(div2k_lr(get(2), 2))==4 and server.log[6][1]=='bytes=1000-'

def test_many_breaks_are_no_failure_while_bytes_come(get, server):
    server.faults = [('drop',100)]*20
    assert len(div2k_lr(get(2), 2))==4

def test_wrong_length(get, server, archives):
    n = len(archives['DIV2K_train_HR.zip'])
    server.faults = [('lie',n+5)]*99
    with pytest.raises(ConnectionError, match='kept'): get(2)
    assert len(server.log)<20

def test_file_that_became_shorter_on_the_server(get, server, tmp_path, archives):
    part = tmp_path/'archive'/'DIV2K_train_HR.zip.part'
    part.parent.mkdir()
    part.write_bytes(bytes(len(archives['DIV2K_train_HR.zip'])+10)) # the rest of it: 416
    assert len(div2k_lr(get(2), 2))==4

def test_404(get, server, tmp_path):
    del server.files['DIV2K_train_HR.zip']
    with pytest.raises(OSError, match='DIV2K_train_HR.zip: the server answers 404.*path='): get(2)
    assert left(tmp_path)==[] and len(server.log)==1 # no second attempt

def test_nobody_there(get, tmp_path):
    with pytest.raises(ConnectionError, match='refused.*call again'): get(2, url='http://127.0.0.1:9/')

def test_corrupt_zip(get, server, tmp_path):
    z = bytearray(server.files['DIV2K_train_HR.zip'])
    z[200] ^= 255 # in the first image: its checksum tells
    server.files['DIV2K_train_HR.zip'] = bytes(z)
    with pytest.raises(ValueError, match='DIV2K_train_HR.zip is a damaged zip.*removed'): get(2)
    server.files['DIV2K_train_HR.zip'] = b'<html>maintenance</html>'
    (tmp_path/'archive'/'div2k_pins.json').unlink()
    with pytest.raises(ValueError, match='damaged zip'): get(2)
    assert left(tmp_path)==[] and not any((tmp_path/'data'/'DIV2K').iterdir())

@pytest.mark.parametrize('name', ['../evil.txt','/tmp/evil.txt','DIV2K_train_HR/../../evil.txt','DIV2K_train_HR\\..\\evil.txt'])
def test_zip_slip(get, server, tmp_path, name):
    server.files['DIV2K_train_HR.zip'] = make_zip({'DIV2K_train_HR/0001.png':b'x', name:b'evil'})
    with pytest.raises(ValueError, match='outside of its folder: not unzipped'): get(2)
    assert not list(tmp_path.rglob('*evil*')) and not any((tmp_path/'data'/'DIV2K').iterdir())

def test_link_in_the_zip(get, server, tmp_path):
    b = io.BytesIO()
    with zipfile.ZipFile(b, 'w') as z:
        i = zipfile.ZipInfo('DIV2K_train_HR/0001.png')
        i.external_attr = (stat.S_IFLNK|0o777)<<16
        z.writestr(i, '/etc/passwd')
    server.files['DIV2K_train_HR.zip'] = b.getvalue()
    with pytest.raises(ValueError, match='not unzipped'): get(2)

def test_another_archive_under_that_name(get, server):
    server.files['DIV2K_train_HR.zip'] = make_zip({'Flickr2K/1.png':b'x'})
    with pytest.raises(ValueError, match='has no folder DIV2K_train_HR, but Flickr2K'): get(2)

def test_killed_while_unzipping(get, tmp_path, monkeypatch):
    real,n = zipfile.ZipFile.extract,[]
    def dies(self, *a):
        n.append(1)
        if len(n)==2: raise KeyboardInterrupt
        return real(self, *a)
    monkeypatch.setattr(zipfile.ZipFile, 'extract', dies)
    with pytest.raises(KeyboardInterrupt): get(2)
    assert not list((tmp_path/'data'/'DIV2K').iterdir())
    monkeypatch.undo(); monkeypatch.setattr(D, 'fastai_path', lambda k: tmp_path/k); monkeypatch.setattr(D, '_archives', {})
    assert len(div2k_lr(get(2), 2))==4

def test_published_sums(get, server, archives, tmp_path, monkeypatch):
    z = archives['DIV2K_train_HR.zip']
    monkeypatch.setattr(D, '_archives', {'DIV2K_train_HR.zip':(len(z)+1,'0'*64)})
    with pytest.raises(ValueError, match='it is not the original'): get(2)
    monkeypatch.setattr(D, '_archives', {'DIV2K_train_HR.zip':(len(z),'0'*64)})
    with pytest.raises(ValueError, match='has the SHA-256 .* where 0000.*removed'): get(2)
    assert left(tmp_path)==[]

def test_pinned_on_first_use(get, server, archives, tmp_path):
    path = get(2)
    pins = json.loads((tmp_path/'archive'/'div2k_pins.json').read_text())
    url = server.url+'/DIV2K_train_HR.zip'
    (tmp_path/'x').write_bytes(archives['DIV2K_train_HR.zip'])
    assert pins[url]==[len(archives['DIV2K_train_HR.zip']),sha256(tmp_path/'x')] and len(pins)==4
    import shutil; shutil.rmtree(path/'DIV2K_train_HR')
    server.files['DIV2K_train_HR.zip'] = make_zip({'DIV2K_train_HR/0001.png':b'other'})
    with pytest.raises(ValueError, match='pinned by its first use.*div2k_pins.json'): get(2)

def test_archive_brought_by_hand(get, server, archives, tmp_path, monkeypatch):
    z = archives['DIV2K_train_HR.zip']
    f = tmp_path/'archive'/'DIV2K_train_HR.zip'
    f.parent.mkdir()
    f.write_bytes(z)
    monkeypatch.setattr(D, '_archives', {f.name:(len(z),sha256(f))})
    get(2)
    assert '/DIV2K/DIV2K_train_HR.zip' not in [p for p,_ in server.log]

def test_disk_space(get, server, monkeypatch):
    monkeypatch.setattr(D, '_archives', {'DIV2K_train_HR.zip':(3530603713,'0'*64)})
    monkeypatch.setattr(D.shutil, 'disk_usage', lambda p: type('U', (), dict(free=2e9)))
    with pytest.raises(OSError, match='DIV2K takes 7.1 GB.*has 2.0 GB free'): get(2)
    assert server.log==[] # before anything is fetched

def test_existing_copy(get, server, tmp_path):
    path = get(2)
    n = len(server.log)
    assert untar_div2k(2, path=path)==path and len(server.log)==n
    with pytest.raises(FileNotFoundError, match='has no DIV2K_train_LR_unknown/X2.*path= has to be'): untar_div2k(2, 'unknown', path=path)

def test_two_processes_fetch_once(get, server):
    done = []
    ts = [threading.Thread(target=lambda: done.append(get(2))) for _ in range(3)]
    for t in ts: t.start()
    for t in ts: t.join()
    assert len(done)==3 and len(server.log)==4

def test_published_archives_are_complete():
    for name,(size,sha) in D._archives.items(): assert size>8e6 and len(sha)==64 and int(sha, 16)
