"Thousands of damaged files: each ends in a picture or in one sentence; no crash, no hang, no file half-written, memory bounded."
import json, os, subprocess, sys, textwrap
import pytest
from sr_fastai.files import atomic_path

CHILD = textwrap.dedent(r'''
    "Makes damaged files of every format, reads them, writes what could be read; one line of JSON for each."
    import io, json, random, resource, signal, struct, sys, time, warnings, zlib
    from pathlib import Path
    import numpy as np, tifffile, imagecodecs
    from PIL import ExifTags, Image, PngImagePlugin, features
    from sr_fastai.imageio import *
    resource.setrlimit(resource.RLIMIT_AS, (6<<30,)*2)
    warnings.simplefilter('ignore')
    n,seed,out = int(sys.argv[1]),int(sys.argv[2]),Path(sys.argv[3])
    rng,nprng = random.Random(seed),np.random.default_rng(seed)
    a = np.kron(nprng.integers(0, 256, (6,8,4), dtype=np.uint8), np.ones((6,6,1), np.uint8))
    im = Image.fromarray(a)
    exif = Image.Exif(); exif[ORIENTATION],exif[ExifTags.Base.Model] = 6,'Camera'
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.ExifImageWidth:48}

    def pil(im, fmt, **kw):
        f = io.BytesIO()
        im.save(f, fmt, **kw)
        return f.getvalue()
    def tif(a, **kw):
        f = io.BytesIO()
        tifffile.imwrite(f, a, **kw)
        return f.getvalue()
    rgb,deep = im.convert('RGB'),a[...,:3].astype(np.uint16)*257
    meta = dict(exif=exif, dpi=(300,300), icc_profile=b'x'*200)
    seeds = dict(png=pil(im, 'PNG', **meta), png_p=pil(rgb.convert('P'), 'PNG'), png_1=pil(rgb.convert('1'), 'PNG'), png16=imagecodecs.png_encode(deep), png16l=pil(Image.fromarray(deep[...,0]), 'PNG'),
        jpg=pil(rgb, 'JPEG', **meta), jpg_l=pil(rgb.convert('L'), 'JPEG'), jpg_cmyk=pil(rgb.convert('CMYK'), 'JPEG'), jpg_prog=pil(rgb, 'JPEG', progressive=True), webp=pil(im, 'WEBP', **meta), webp_ll=pil(im, 'WEBP', lossless=True),
        tif=pil(rgb, 'TIFF', exif=exif.tobytes(), dpi=(300,300)), tif_lzw=pil(rgb, 'TIFF', compression='tiff_lzw'), tif16=tif(deep, photometric='rgb'), tif16_zip=tif(deep, photometric='rgb', compression='zlib', predictor=True),
        tif_f=tif((a[...,0]/255).astype('f4'), compression='lzw'), tif_jpg=pil(rgb, 'TIFF', compression='jpeg'), bmp=pil(rgb, 'BMP'), gif=pil(rgb, 'GIF'), ppm=pil(rgb, 'PPM'), tga=pil(im, 'TGA'), jp2=pil(rgb, 'JPEG2000'))
    if features.check('avif'): seeds['avif'] = pil(im, 'AVIF')

    def damaged(kind, b):
        b = bytearray(b)
        how = rng.choice(['flip','flip','head','cut','size','zero','insert'])
        if how=='flip':
            for _ in range(rng.choice([1,3,20])): b[rng.randrange(len(b))] ^= 1<<rng.randrange(8)
        elif how=='head':
            for _ in range(rng.choice([1,3,8])): b[rng.randrange(min(len(b), 200))] = rng.randrange(256)
        elif how=='cut': del b[rng.randrange(len(b)):]
        elif how=='insert':
            i = rng.randrange(len(b)); b[i:i] = bytes(rng.randrange(256) for _ in range(rng.choice([1,4,100])))
        else: # a size that is huge, or zero, where formats keep it
            v = 0 if how=='zero' else rng.choice([0x7fffffff, 0xffffffff, 0x10000, 60000, 0xffff])
            if kind.startswith('png'):
                i = 16+4*rng.randrange(2)
                b[i:i+4] = struct.pack('>I', v); b[29:33] = struct.pack('>I', zlib.crc32(b[12:29]))
            elif kind.startswith('jpg'):
                i = max(b.find(b'\xff\xc0'), b.find(b'\xff\xc2'))+5+2*rng.randrange(2); b[i:i+2] = struct.pack('>H', v&0xffff)
            else:
                for size in (48,36): # as 16- and 32-bit numbers of either byte order
                    for f in ('<I','>I','<H','>H'):
                        i = b.find(struct.pack(f, size))
                        if i>=0 and rng.random()<.5: b[i:i+struct.calcsize(f)] = struct.pack(f, v&(0xffffffff if f[1]=='I' else 0xffff))
        return how,bytes(b)

    def late(*_): raise SystemExit('hang')
    signal.signal(signal.SIGALRM, late)
    for i in range(n):
        kind = list(seeds)[i%len(seeds)]
        how,b = damaged(kind, seeds[kind])
        print(json.dumps(dict(i=i, kind=kind, how=how)), flush=True) # so that the last line tells who crashed
        signal.alarm(10)
        t = time.time()
        try:
            p = read_image(b)
            ok = p.a.ndim==3 and p.a.dtype in (np.uint8,np.uint16,np.float32) and p.mode in ('L','LA','RGB','RGBA','CMYK') and p.a.shape[-1]==dict(L=1,LA=2,RGB=3,RGBA=4,CMYK=4)[p.mode]
            if p.a.size<5e6: write_image(p, out/f"a.{kind.split('_')[0].removesuffix('16').removesuffix('16l')}")
            end = 'picture' if ok else f'wrong: {p.mode} {p.a.shape} {p.a.dtype}'
        except (ImageError,OSError) as e:
            end = 'sentence' if '\n' not in str(e) and 10<len(str(e))<400 else f'no sentence: {e!r}'
        except BaseException as e: end = f'{type(e).__name__}: {e}'
        signal.alarm(0)
        if end not in ('picture','sentence'): (out/f'bad_{i}').write_bytes(b)
        print(json.dumps(dict(i=i, end=end, s=round(time.time()-t, 2))), flush=True)
    print(json.dumps(dict(peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024, left=[p.name for p in out.glob('.*')])))
''')

def torture(n, seed, out):
    r = subprocess.run([sys.executable, '-c', CHILD, str(n), str(seed), str(out)], capture_output=True, text=True, errors='replace', timeout=600)
    lines = [json.loads(l) for l in r.stdout.splitlines()]
    assert r.returncode==0, f"after {lines[-2:]}: {r.stderr[-500:]}"
    ends = [l for l in lines if 'end' in l]
    bad = [l for l in ends if l['end'] not in ('picture','sentence')]
    assert not bad and len(ends)==n
    assert max(l['s'] for l in ends)<10
    assert lines[-1]['left']==[] and lines[-1]['peak']<2500, lines[-1]
    # both ends are met, or the damage proves nothing
    for end in ('picture','sentence'): assert sum(l['end']==end for l in ends)>n/10

@pytest.mark.skipif(sys.platform=='win32', reason='resource limits and alarms')
def test_damaged_files(tmp_path): torture(300, 1, tmp_path)

@pytest.mark.slow
@pytest.mark.skipif(sys.platform=='win32', reason='resource limits and alarms')
@pytest.mark.parametrize('seed', [2,3,4,5])
def test_many_damaged_files(tmp_path, seed): torture(500, seed, tmp_path)

@pytest.mark.skipif(os.name=='nt', reason='modes')
def test_the_umask_of_other_threads_is_left_alone(tmp_path, monkeypatch):
    "To learn it is to change it, and a file that another thread makes meanwhile would be open to all."
    was = os.umask(0o027)
    try:
        monkeypatch.setattr(os, 'umask', lambda m: pytest.fail('changed'))
        with atomic_path(tmp_path/'a') as tmp: tmp.write_text('a')
        assert (tmp_path/'a').stat().st_mode&0o777==0o640
    finally:
        monkeypatch.undo()
        os.umask(was)
