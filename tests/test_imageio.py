"Any picture in, its equal out: every format, mode and kind of metadata, through the upscaler."
import io, struct, warnings, zlib
from dataclasses import replace
import numpy as np, PIL, pytest, tifffile
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, features
from sr_fastai.engine import upscale, upscale_file
from sr_fastai.imageio import *
from sr_fastai.models import Generator

E,G = ExifTags.Base,ExifTags.GPS
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="A title"/></x:xmpmeta>'
FORMATS = ['png','jpg','webp','tif', pytest.param('avif', marks=pytest.mark.skipif(not features.check('avif'), reason='this Pillow has no AVIF'))]

@pytest.fixture(scope='module')
def model():
    import torch
    torch.manual_seed(42)
    return Generator(width=4, depth=1).eval()

def noise(h, w, c, dtype=np.uint8):
    a = np.random.default_rng(42).integers(0, np.iinfo(dtype).max+1, (h,w,c), dtype=dtype)
    return a[...,0] if c==1 else a

def png_chunk(k, v): return struct.pack('>I', len(v))+k+v+struct.pack('>I', zlib.crc32(k+v))

def exif(orientation=6):
    e = Image.Exif()
    e[ORIENTATION],e[E.Model],e[E.Artist],e[E.ImageWidth] = orientation,'Camera','Ann',20
    e[ExifTags.IFD.Exif] = {E.ExifImageWidth:20, E.ExifImageHeight:10, E.LensModel:'Lens 50', E.ExposureTime:(1,50)}
    e[ExifTags.IFD.GPSInfo] = {G.GPSLatitudeRef:'N', G.GPSLatitude:(1.,2.,3.)}
    return e

def save(im, path, **kw):
    if path.suffix=='.png':
        info = PngImagePlugin.PngInfo()
        info.add_itxt('XML:com.adobe.xmp', kw.pop('xmp', b'').decode())
        info.add_text('Comment', 'Kept')
        info.add(b'gAMA', struct.pack('>I', 45455))
        kw['pnginfo'] = info
    if path.suffix=='.tif':
        if 'xmp' in kw: kw['exif'][700] = kw.pop('xmp')
        kw['exif'] = kw['exif'].tobytes() # as a dict, Pillow loses its directories
    im.save(path, **kw)
    return path

def check_meta(q, size, orientation=1):
    e = q.getexif()
    sub,gps = e.get_ifd(ExifTags.IFD.Exif),e.get_ifd(ExifTags.IFD.GPSInfo)
    assert (e[E.Model], e[E.Artist], e.get(ORIENTATION, 1))==('Camera','Ann',orientation)
    assert (sub[E.LensModel], sub[E.ExifImageWidth], sub[E.ExifImageHeight])==('Lens 50',*size)
    assert e[E.ImageWidth]==size[0]
    assert gps[G.GPSLatitudeRef]=='N' and tuple(map(float, gps[G.GPSLatitude]))==(1,2,3)
    assert q.info['icc_profile']==ICC
    assert b'dc:title="A title"' in q.info['xmp'] and b'tiff:Orientation="6"' not in q.info['xmp']

@pytest.mark.parametrize('fmt', FORMATS)
def test_metadata(tmp_path, model, fmt):
    im = Image.fromarray(noise(10, 20, 3))
    src = save(im, tmp_path/f'a.{fmt}', exif=exif(), icc_profile=ICC, dpi=(300,150), xmp=XMP)
    upscale_file(src, tmp_path/f'b.{fmt}', model=model)
    with Image.open(tmp_path/f'b.{fmt}') as q:
        assert q.size==(20,40) # turned once
        check_meta(q, q.size)
        if fmt in ('png','jpg','tif'): assert tuple(np.round(tuple(map(float, q.info['dpi']))))==(150,300)
        if fmt=='png': assert q.text['Comment']=='Kept' and q.info['gamma']==.45455

@pytest.mark.parametrize('fmt', ['png','tif'])
def test_metadata_of_16_bits(tmp_path, model, fmt):
    a = noise(10, 20, 3, np.uint16)
    # 16-bit colour with all metadata, written by others: libpng's pixels and Pillow's chunks; tifffile, with Pillow's EXIF directory
    small = save(Image.fromarray(noise(10, 20, 3)), tmp_path/f'small.{fmt}', exif=exif(), icc_profile=ICC, dpi=(300,150), xmp=XMP)
    write_image(Picture(a, 'RGB', **{k:getattr(read_image(small), k) for k in ('exif','icc','dpi','xmp','chunks')}), tmp_path/f'a.{fmt}') # turned already
    upscale_file(tmp_path/f'a.{fmt}', tmp_path/f'b.{fmt}', model=model)
    with Image.open(tmp_path/f'b.{fmt}') as q:
        assert q.size==(40,20)
        check_meta(q, q.size)
        q.load()
    assert read_image(tmp_path/f'b.{fmt}').a.dtype==np.uint16
    if fmt=='tif': assert tifffile.imread(tmp_path/'b.tif').shape==(20,40,3)

@pytest.mark.parametrize('fmt', FORMATS)
def test_exif_of_other_programs(tmp_path, fmt):
    "Text beyond ASCII, what Windows keeps in bytes, and the directory that tells the colour space of a camera."
    class Utf8(str):
        def encode(self, *_): return str.encode(self)
    name,title,e = 'Zoë','Über'.encode('utf-16le'),Image.Exif()
    e[E.Artist],e[E.Software],e[E.Rating],e[E.XPTitle] = Utf8(name),Utf8(name),5,title
    e[ExifTags.IFD.Exif] = {E.LensModel:Utf8(name), ExifTags.IFD.Interop:{1:'R98'}}
    Image.new('RGB', (9,9)).save(tmp_path/'a.jpg', exif=e)
    write_image(read_image(tmp_path/'a.jpg'), tmp_path/f'b.{fmt}')
    write_image(read_image(tmp_path/f'b.{fmt}'), tmp_path/f'c.{fmt}')
    with Image.open(tmp_path/f'c.{fmt}') as q:
        got = q.getexif()
        sub = got.get_ifd(ExifTags.IFD.Exif)
        assert [o.encode('latin-1').decode() for o in (got[E.Artist], got[E.Software], sub[E.LensModel])]==[name]*3
        assert (got[E.Rating], got[E.XPTitle])==(5,title)
        assert got.get_ifd(ExifTags.IFD.Interop)=={1:'R98'}

def test_exif_without_directories_gets_none(tmp_path):
    e = Image.Exif()
    e[E.Artist] = 'Ann'
    Image.new('RGB', (9,9)).save(tmp_path/'a.jpg', exif=e)
    write_image(read_image(tmp_path/'a.jpg'), tmp_path/'b.jpg')
    with Image.open(tmp_path/'b.jpg') as q: assert dict(q.getexif())=={E.Artist:'Ann'}

@pytest.mark.parametrize('o', range(1,9))
def test_orientation_as_pillow_turns(tmp_path, o):
    from PIL import ImageOps
    im = Image.fromarray(noise(5, 8, 3))
    im.save(tmp_path/'a.png', exif=exif(o))
    with Image.open(tmp_path/'a.png') as q: want = np.asarray(ImageOps.exif_transpose(q))
    assert (read_image(tmp_path/'a.png').a==want).all()

def test_pil_objects_are_not_turned(tmp_path, model):
    save(Image.fromarray(noise(10, 20, 3)), tmp_path/'a.jpg', exif=exif(), xmp=XMP, icc_profile=ICC)
    with Image.open(tmp_path/'a.jpg') as im: big = upscale(im, model=model)
    assert big.size==(40,20) and big.getexif()[ORIENTATION]==6

CASES = [(m,'png') for m in ('1','L','LA','P','RGB','RGBA','I;16')] + [(m,'tif') for m in ('1','L','LA','P','RGB','RGBA','CMYK','I;16','F')] + [
    ('L','jpg'),('RGB','jpg'),('CMYK','jpg'),('RGB','webp'),('RGBA','webp'),('L','bmp'),('RGB','bmp'),('P','bmp'),('1','bmp'),('P','gif'),('L','gif'),('RGB','jp2'),('RGB','ppm'),('L','pgm'),('RGBA','tga')]

@pytest.mark.parametrize('mode,fmt', CASES)
def test_modes(tmp_path, model, mode, fmt):
    im = Image.fromarray(noise(9, 12, 1, np.uint16)) if mode=='I;16' else Image.fromarray(noise(9, 12, 1)/np.float32(255)) if mode=='F' else Image.fromarray(noise(9, 12, 4)).convert(mode)
    im.save(tmp_path/f'a.{fmt}')
    with Image.open(tmp_path/f'a.{fmt}') as q: mode = q.mode # a GIF in L comes back in L or P
    upscale_file(tmp_path/f'a.{fmt}', tmp_path/f'b.{fmt}', model=model)
    with Image.open(tmp_path/f'b.{fmt}') as q:
        q.load()
        assert (q.mode, q.size)==(mode, (24,18))

@pytest.mark.parametrize('c,dtype,fmt', [(c,np.uint16,f) for c in (1,2,3,4) for f in ('png','tif')]+[(c,np.float32,'tif') for c in (1,3,4)])
def test_depths(tmp_path, c, dtype, fmt):
    "Scale 1 changes nothing, so what comes back is what was read."
    a = noise(9, 12, c, np.uint16)
    a = a if dtype==np.uint16 else a/np.float32(65535)
    if fmt=='tif': tifffile.imwrite(tmp_path/'a.tif', a, photometric='rgb' if c>2 else 'minisblack', extrasamples=['unassalpha'] if c in (2,4) else None)
    else:
        import imagecodecs
        (tmp_path/'a.png').write_bytes(imagecodecs.png_encode(a))
    upscale_file(tmp_path/f'a.{fmt}', tmp_path/f'b.{fmt}', scale=1)
    q = read_image(tmp_path/f'b.{fmt}')
    assert q.a.dtype==dtype and (q.a==a.reshape(9, 12, c)).all()

@pytest.mark.parametrize('kw', [dict(planarconfig='separate'), dict(compression='lzw', predictor=True), dict(compression='zlib', predictor=True), dict(byteorder='>'), dict(tile=(16,16)), dict(bigtiff=True)])
def test_layouts_of_tiff(tmp_path, kw):
    a = noise(40, 50, 3, np.uint16)
    tifffile.imwrite(tmp_path/'a.tif', np.moveaxis(a, -1, 0) if 'planarconfig' in kw else a, photometric='rgb', **kw)
    assert (read_image(tmp_path/'a.tif').a==a).all()

@pytest.mark.parametrize('dtype,peak', [(np.uint16,65535),(np.float32,1)])
def test_colours_multiplied_by_alpha(tmp_path, dtype, peak):
    a = np.array([[[1,.5,0,1], [.25,.25,0,.5], [0,0,0,0]]])*peak
    tifffile.imwrite(tmp_path/'a.tif', a.astype(dtype), photometric='rgb', extrasamples=['assocalpha'])
    want = np.array([[[1,.5,0,1], [.5,.5,0,.5], [0,0,0,0]]])*peak
    np.testing.assert_allclose(read_image(tmp_path/'a.tif').a, want, atol=1.01 if peak>1 else 1e-6)

@pytest.mark.parametrize('bits', [10,12,14])
def test_bits_between_8_and_16(tmp_path, bits):
    a = np.array([[0,1,2**(bits-1),2**bits-1]], np.uint16)
    try: tifffile.imwrite(tmp_path/'a.tif', a, bitspersample=bits, photometric='minisblack')
    except NotImplementedError: pytest.skip('this imagecodecs packs no bits')
    np.testing.assert_array_equal(read_image(tmp_path/'a.tif').a[...,0], np.rint(a/(2**bits-1)*65535))

@pytest.mark.parametrize('fmt', ['JPEG2000','PPM'])
def test_grey_of_16_bits_where_there_is_no_colour_of_16(fmt):
    a,f = noise(9, 9, 1, np.uint16),io.BytesIO()
    encode_image(Picture(a[...,None], 'L'), fmt, f)
    np.testing.assert_array_equal(read_image(f).a[...,0], a)

@pytest.mark.skipif(int(PIL.__version__.split('.')[0])<12, reason='Pillow 11 takes no clear colour of black and white')
def test_black_and_white_with_a_clear_colour(tmp_path):
    im = Image.fromarray(np.array([[0,255]], np.uint8)).convert('1')
    im.save(tmp_path/'a.png', transparency=1)
    want = np.asarray(Image.open(tmp_path/'a.png').convert('RGBA'))[...,2:]
    assert set(want[...,1].ravel())=={0,255}
    p = read_image(tmp_path/'a.png')
    assert (p.mode, p.stored)==('LA',None)
    np.testing.assert_array_equal(p.a, want)

def test_ink_with_a_profile_of_light(tmp_path):
    Image.new('CMYK', (8,8), (255,0,0,0)).save(tmp_path/'a.jpg', icc_profile=ICC)
    with pytest.warns(UserWarning, match='ICC profile'): write_image(read_image(tmp_path/'a.jpg'), tmp_path/'a.png')
    assert read_image(tmp_path/'a.png').mode=='RGB'

def test_lab_of_16_bits_is_refused_by_name(tmp_path):
    tifffile.imwrite(tmp_path/'a.tif', noise(8, 8, 3, np.uint16), photometric='cielab')
    with pytest.raises(ImageError, match='16 bits of CIELAB; convert it to RGB'): read_image(tmp_path/'a.tif')

def test_min_is_white(tmp_path):
    a = noise(9, 12, 1, np.uint16)
    tifffile.imwrite(tmp_path/'a.tif', a, photometric='miniswhite')
    assert (read_image(tmp_path/'a.tif').a[...,0]==65535-a).all()

@pytest.mark.parametrize('bad,says', [(noise(8, 8, 1).astype(np.float32), 'divide by 255'), (np.full((8,8), np.nan, np.float32), 'NaN'), (noise(8, 8, 1).astype(np.int32)*99999, 'integers of|convert it to 8 or 16'),
    (np.zeros((8,8,3), np.uint32), 'convert it to 8 or 16')])
def test_values_that_are_refused(tmp_path, bad, says):
    tifffile.imwrite(tmp_path/'a.tif', bad)
    with pytest.raises(ImageError, match=says): read_image(tmp_path/'a.tif')

def test_transparency_kinds(tmp_path, model):
    a = noise(10, 12, 4)
    b = np.zeros((10,12,4), np.uint8)
    b[5:] = 200,100,50,255
    Image.fromarray(b).quantize(16, Image.Quantize.FASTOCTREE).save(tmp_path/'p.png')
    Image.fromarray(b).save(tmp_path/'g.gif')
    upscale_file(tmp_path/'g.gif', tmp_path/'g2.gif', model=model)
    with Image.open(tmp_path/'g2.gif') as q:
        alpha = np.asarray(q.convert('RGBA'))[...,3]
        assert alpha[:8].max()==0 and alpha[12:].min()==255
    g = Image.fromarray(a[...,0])
    g.save(tmp_path/'key.png', transparency=int(a[7,7,0]))
    Image.fromarray(a[...,:3]).save(tmp_path/'rgbkey.png', transparency=tuple(int(o) for o in a[7,7,:3]))
    for n,modes in (('p',('P',)), ('key',('LA',)), ('rgbkey',('RGBA',))):
        upscale_file(tmp_path/f'{n}.png', tmp_path/'b.png', model=model)
        with Image.open(tmp_path/'b.png') as q:
            assert q.mode in modes and q.has_transparency_data
            if n=='p': # transparent above, opaque below
                alpha = np.asarray(q.convert('RGBA'))[...,3]
                assert alpha[:6].max()==0 and alpha[14:].min()==255

@pytest.mark.parametrize('c', [1,3])
def test_a_transparent_colour_of_16_bits(tmp_path, c):
    "Pillow made such colours 8 bits, and such greys opaque."
    import imagecodecs
    a = noise(10, 12, c, np.uint16)
    png = imagecodecs.png_encode(a)
    (tmp_path/'a.png').write_bytes(png[:33]+png_chunk(b'tRNS', struct.pack(f'>{c}H', *a.reshape(10, 12, c)[7,7]))+png[33:])
    upscale_file(tmp_path/'a.png', tmp_path/'b.png', scale=1)
    p = read_image(tmp_path/'b.png')
    assert p.a.dtype==np.uint16 and (p.a[...,:-1]==a.reshape(10, 12, c)).all()
    assert p.mode=={1:'LA',3:'RGBA'}[c] and np.argwhere(p.a[...,-1]!=65535).tolist()==[[7,7]] and p.a[7,7,-1]==0

@pytest.mark.parametrize('to', ['ppm','pgm','tga'])
@pytest.mark.parametrize('mode', ['RGB','RGBA'])
def test_a_palette_where_there_is_none(tmp_path, mode, to):
    "PPM has no palettes, and those of TGA have no transparency: the picture gets its colours themselves."
    a = np.full((10,12,4), (200,100,50,255), np.uint8)
    a[:5,:,3] = 0
    Image.fromarray(a).convert(mode).quantize(16, Image.Quantize.FASTOCTREE).save(tmp_path/'a.png')
    p = read_image(tmp_path/'a.png')
    q = read_image(write_image(p, tmp_path/f'b.{to}'))
    assert (p.stored, p.mode, q.mode)==('P', mode, mode if to=='tga' else 'RGB') and (q.a[9,9,:3]==p.a[9,9,:3]).all()
    if q.mode=='RGBA': assert (q.a[...,3]==a[...,3]).all()

def test_alpha_goes_on_white_where_there_is_none(tmp_path):
    a = np.zeros((4,4,4), np.uint8)
    a[:,:2] = 255,0,0,255
    write_image(Picture(a, 'RGBA'), tmp_path/'a.bmp')
    with Image.open(tmp_path/'a.bmp') as q: assert (q.getpixel((0,0)), q.getpixel((3,0)))==((255,0,0),(255,255,255))

def test_ink_becomes_light_where_there_is_no_ink(tmp_path):
    a = np.zeros((4,4,4), np.uint8)
    a[:,:2] = 0,255,255,0
    write_image(Picture(a, 'CMYK'), tmp_path/'a.png')
    with Image.open(tmp_path/'a.png') as q: assert (q.mode, q.getpixel((0,0)), q.getpixel((3,0)))==('RGB',(255,0,0),(255,255,255))

def test_first_frame_is_said(tmp_path):
    frames = [Image.new('RGB', (8,8), c) for c in ('red','green','blue')]
    for fmt in ('gif','webp','png','tif'):
        frames[0].save(tmp_path/f'a.{fmt}', save_all=True, append_images=frames[1:])
        p = read_image(tmp_path/f'a.{fmt}')
        assert 'only the first' in p.notes[0] and p.a[4,4,0]>250

@pytest.mark.parametrize('kw', [{}, dict(exif=exif()), dict(icc_profile=ICC), dict(save_all=True, append_images=[Image.new('RGBA', (10,12))])])
def test_lossless_webp_is_clean(tmp_path, kw):
    "Its chunk VP8L stands alone, after VP8X and what belongs to that, or in a frame of an animation; the alpha of a lossy one is lossless too, and says nothing."
    for lossless in (True,False):
        Image.fromarray(noise(12, 10, 4)).save(tmp_path/'a.webp', lossless=lossless, **kw)
        assert read_image(tmp_path/'a.webp').quality==(100 if lossless else None)

def test_lossless_webp_is_clean_as_an_object(tmp_path):
    for lossless in (True,False):
        Image.fromarray(noise(9, 9, 3)).save(tmp_path/'a.webp', lossless=lossless)
        with Image.open(tmp_path/'a.webp') as im: assert from_pil(im).quality==(100 if lossless else None)

def test_damaged_exif_costs_nothing_else(tmp_path, model):
    im = Image.fromarray(noise(8, 8, 3))
    for junk in (b'Exif\0\0', b'Exif\0\0II*\0\xff\xff\xff\xff', b'Exif\0\0MM\0*\0\0\0\x08\xff\xff'+bytes(range(200))):
        im.save(tmp_path/'a.jpg', exif=junk)
        upscale_file(tmp_path/'a.jpg', tmp_path/'b.jpg', model=model)

def test_sources(tmp_path):
    a = noise(8, 9, 3)
    Image.fromarray(a).save(tmp_path/'ünï 日本.png')
    p = tmp_path/'ünï 日本.png'
    data = p.read_bytes()
    with p.open('rb') as f:
        for s in (p, str(p), data, memoryview(data), io.BytesIO(data), f): assert (read_image(s).a==a).all()

def test_streams(model):
    a,f = noise(8, 8, 3),io.BytesIO()
    Image.fromarray(a).save(f, 'PNG') # and it stands at its end
    np.testing.assert_array_equal(np.asarray(upscale(f, model=model)), upscale(a, model=model))
    class Answer(io.BytesIO):
        def seekable(self): return False
        def seek(self, *_): raise io.UnsupportedOperation('seek')
    np.testing.assert_array_equal(read_image(Answer(f.getvalue())).a, a)

def test_a_pil_image_stays_as_it_is(tmp_path):
    Image.new('RGB', (9,9)).save(tmp_path/'a.tif', compression='tiff_deflate')
    with Image.open(tmp_path/'a.tif') as im:
        was = dict(im.getexif())
        from_pil(im)
        assert dict(im.getexif())==was and E.Compression in was

def test_content_tells_not_the_name(tmp_path):
    a = noise(8, 9, 3)
    Image.fromarray(a).save(tmp_path/'a.png')
    (tmp_path/'a.png').rename(tmp_path/'a.jpg')
    assert read_image(tmp_path/'a.jpg').format=='PNG'

def test_other_programs_are_not_started(tmp_path):
    (tmp_path/'a.eps').write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n')
    with pytest.raises(ImageError, match='not a picture'): read_image(tmp_path/'a.eps')

def test_sizes_that_a_format_cannot_hold(tmp_path):
    with pytest.raises(ImageError, match='at most 16383'): write_image(Picture(np.zeros((1,16384,3), np.uint8), 'RGB'), tmp_path/'a.webp')
    assert not list(tmp_path.iterdir())

def test_pillows_own_limit_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    Image.fromarray(noise(8, 9, 3)).save(tmp_path/'a.png')
    assert read_image(tmp_path/'a.png').size==(9,8)
    assert Image.MAX_IMAGE_PIXELS==10

def test_a_long_text_after_the_pixels(tmp_path, monkeypatch):
    "Pillow allows 1 MB of it, everybody else's limit stays."
    f = io.BytesIO()
    Image.fromarray(noise(8, 9, 3)).save(f, 'PNG')
    text = png_chunk(b'zTXt', b'Notes\0\0'+zlib.compress(b'x'*3_000_000))
    monkeypatch.setattr(PngImagePlugin, 'MAX_TEXT_CHUNK', 1000)
    pic = read_image(f.getvalue()[:-12]+text+f.getvalue()[-12:])
    assert pic.size==(9,8) and ('Notes','x'*3_000_000) in [v for k,v in pic.chunks if k==b'tEXt'] and PngImagePlugin.MAX_TEXT_CHUNK==1000

@pytest.mark.parametrize('bits', [1,2,4,8])
def test_a_clear_grey_of_few_bits(bits):
    "Pillow has the pixels in 8 bits, and the clear one in the file's."
    a = np.arange(2**bits, dtype=np.uint8)[None]
    rows = b'\0'+np.packbits(np.unpackbits(a[...,None], axis=-1)[...,-bits:].reshape(-1)).tobytes()
    png = b'\x89PNG\r\n\x1a\n'+png_chunk(b'IHDR', struct.pack('>IIBBBBB', 2**bits, 1, bits, 0, 0, 0, 0))+png_chunk(b'tRNS', struct.pack('>H', 1))+png_chunk(b'IDAT', zlib.compress(rows))+png_chunk(b'IEND', b'')
    pic = read_image(png)
    assert pic.mode=='LA' and (pic.a[0,:,0]==a[0]*(255//(2**bits-1))).all() and (pic.a[0,:,1]==255*(a[0]!=1)).all()

@pytest.mark.skipif(not features.check('jpg_2000'), reason='this Pillow has no JPEG 2000')
def test_the_profile_of_a_jpeg_2000(tmp_path, model):
    f = io.BytesIO()
    Image.fromarray(noise(8, 9, 3)).save(f, 'JPEG2000', irreversible=False)
    data = f.getvalue()
    i = data.index(b'colr')-4
    n, = struct.unpack('>I', data[i:i+4])
    j = data.index(b'jp2h')-4
    box = struct.pack('>I', 11+len(ICC))+b'colr\2\0\0'+ICC
    more = len(box)-n
    data = data[:j]+struct.pack('>I', struct.unpack('>I', data[j:j+4])[0]+more)+data[j+4:i]+box+data[i+n:]
    (tmp_path/'a.jp2').write_bytes(data)
    assert read_image(tmp_path/'a.jp2').icc==ICC
    upscale_file(tmp_path/'a.jp2', tmp_path/'b.png', model=model)
    assert Image.open(tmp_path/'b.png').info['icc_profile']==ICC

@pytest.mark.parametrize('fmt', ['webp',*FORMATS[-1:]])
def test_resolution_where_only_exif_has_a_place_for_it(fmt, tmp_path):
    pic = Picture(noise(8, 9, 3), 'RGB', dpi=(300,150))
    p = write_image(pic, tmp_path/f'a.{fmt}')
    assert read_image(p).dpi==(300,150)
    assert tuple(np.round(read_image(write_image(read_image(p), tmp_path/'b.tif')).dpi))==(300,150)
    e = Image.Exif()
    e.update({E.XResolution:100., E.YResolution:50., E.ResolutionUnit:3}) # to the centimetre
    Image.fromarray(noise(8, 9, 3)).save(tmp_path/f'c.{fmt}', exif=e)
    assert read_image(tmp_path/f'c.{fmt}').dpi==(254,127)

def test_pil_of_16_bit_colour_says_what_is_lost(tmp_path, model):
    write_image(Picture(noise(8, 9, 3, np.uint16), 'RGB'), tmp_path/'a.png')
    with pytest.warns(UserWarning, match='8 bits'): assert upscale(tmp_path/'a.png', model=model).mode=='RGB'

def test_metadata_too_long_for_a_jpeg_costs_no_picture(tmp_path):
    "A segment of a JPEG holds 65533 bytes; Photoshop's XMP in a PNG or TIFF may be longer."
    pic = Picture(np.zeros((4,4,3), np.uint8), 'RGB', xmp=b'<x>'+b' '*70_000, dpi=(72,72))
    with pytest.warns(UserWarning, match='a.jpg: XMP of 70,003 bytes is more than a JPEG holds'): write_image(pic, tmp_path/'a.jpg')
    assert read_image(tmp_path/'a.jpg').xmp is None and read_image(tmp_path/'a.jpg').dpi==(72,72)
    fits = replace(pic, xmp=b'<x>'+b' '*65_501)
    assert read_image(write_image(fits, tmp_path/'b.jpg')).xmp==fits.xmp

def _tags(*entries):
    "EXIF as bytes, with tags (number, type, count, value of four bytes) that Pillow reads but does not write."
    return b'Exif\0\0II*\0'+struct.pack('<IH', 8, len(entries))+b''.join(struct.pack('<HHI', *e[:3])+e[3] for e in entries)+bytes(4)

@pytest.mark.parametrize('bad', [
    (E.XResolution, 2, 3, b'72\0\0'), # text for a number
    (E.ImageWidth, 2, 3, b'40\0\0')])
def test_a_tag_that_cannot_be_written_costs_no_other(tmp_path, bad):
    "All EXIF was lost, and with it the orientation."
    data = _tags((E.Make, 2, 4, b'Cam\0'), (E.Orientation, 3, 1, struct.pack('<I', 6)), bad)
    Image.fromarray(noise(10, 20, 3)).save(tmp_path/'a.jpg', exif=data)
    pic = read_image(tmp_path/'a.jpg')
    assert pic.size==(10,20) and load_exif(pic.exif)[E.Make]=='Cam'
    assert read_uint8(tmp_path/'a.jpg').shape==(20,10,3)

def test_a_height_below_the_sea(tmp_path):
    "GPS's altitude as a signed fraction, which some write and Pillow does not."
    gps = struct.pack('<HHHI', 2, 1, 2, 2)+b'S\0\0\0'+struct.pack('<HHIII', 6, 10, 1, 8+2+12+4+2+24+4, 0)+struct.pack('<ii', -12, 1)
    data = b'Exif\0\0II*\0'+struct.pack('<IHHHII', 8, 1, ExifTags.IFD.GPSInfo, 4, 1, 26)+bytes(4)+gps
    Image.fromarray(noise(8, 8, 3)).save(tmp_path/'a.jpg', exif=data)
    assert load_exif(read_image(tmp_path/'a.jpg').exif).get_ifd(ExifTags.IFD.GPSInfo)=={1:'S'}

@pytest.mark.parametrize('dtype,order', [(np.uint8,'<'), (np.uint16,'<'), (np.uint16,'>')])
def test_tags_of_a_bigtiff(tmp_path, dtype, order):
    "Its directory is laid out in another way than EXIF's."
    a = noise(10, 20, 3, dtype)
    tifffile.imwrite(tmp_path/'a.tif', a, photometric='rgb', bigtiff=True, byteorder=order, metadata=None, software=False, extratags=[(E.Make, 2, 0, 'Cam', True)])
    pic = read_image(tmp_path/'a.tif')
    assert (pic.a==a).all()
    if order=='<': assert load_exif(pic.exif)[E.Make]=='Cam' # Pillow reads no other
    upscale_file(tmp_path/'a.tif', tmp_path/'b.tif', scale=1)
    assert (read_image(tmp_path/'b.tif').a==a).all()

@pytest.mark.parametrize('kw', [{}, dict(planarconfig='separate'), dict(byteorder='>'), dict(compression='zlib', predictor=True)])
@pytest.mark.parametrize('dtype', [np.uint16,np.float32])
def test_uint8_of_deeper_tiffs(tmp_path, dtype, kw):
    "Pillow reads some of them wrongly, and some not at all."
    a = noise(10, 20, 3, np.uint16)
    if dtype==np.float32: a = to_depth(a, dtype)
    tifffile.imwrite(tmp_path/'a.tif', np.moveaxis(a, -1, 0) if 'planarconfig' in kw else a, photometric='rgb', **kw)
    assert (read_uint8(tmp_path/'a.tif')==to_depth(a, np.uint8)).all()

@pytest.mark.parametrize('mode,to', [('1','L'), ('L','L'), ('LA','L'), ('P','RGB'), ('RGBA','RGB'), ('CMYK','RGB'), ('I;16','L')])
def test_uint8_of_any_mode(tmp_path, mode, to):
    im = Image.fromarray(noise(8, 9, 1, np.uint16)[...,0]) if mode=='I;16' else Image.fromarray(noise(8, 9, 3)).convert(mode)
    im.save(tmp_path/'a.tif')
    want = to_depth(np.asarray(im), np.uint8) if mode=='I;16' else np.asarray(im.convert(to))
    assert (read_uint8(tmp_path/'a.tif', None)==want).all()

def test_no_note_to_turn_is_left(tmp_path):
    "A PNG of ImageMagick has its EXIF as text too, and XMP may be in single quotes."
    info = PngImagePlugin.PngInfo()
    data = exif(6).tobytes()
    info.add_text('Raw profile type exif', f"\nexif\n{len(data):8}\n{data.hex()}\n")
    info.add_itxt('XML:com.adobe.xmp', "<x tiff:Orientation='6'/>")
    Image.fromarray(noise(8, 9, 3)).save(tmp_path/'a.png', pnginfo=info)
    pic = read_image(tmp_path/'a.png')
    assert pic.size==(8,9) and pic.xmp==b"<x tiff:Orientation='1'/>"
    with Image.open(write_image(pic, tmp_path/'b.png')) as im: assert 'Raw profile type exif' not in im.text and im.getexif()[E.Orientation]==1

@pytest.mark.parametrize('dtype', [np.uint8,np.uint16])
def test_xmp_after_the_pixels(tmp_path, dtype):
    data = write_image(Picture(noise(8, 9, 3, dtype), 'RGB', xmp=b'<x/>'), tmp_path/'a.png').read_bytes()
    at = data.index(b'iTXt')-4
    n = 12+int.from_bytes(data[at:at+4], 'big')
    end = data.index(b'IEND')-4
    (tmp_path/'a.png').write_bytes(data[:at]+data[at+n:end]+data[at:at+n]+data[end:])
    assert read_image(tmp_path/'a.png').xmp==b'<x/>'

def test_lossless_webp_stays_lossless(tmp_path):
    a = noise(8, 9, 3)
    Image.fromarray(a).save(tmp_path/'a.webp', lossless=True)
    pic = read_image(tmp_path/'a.webp')
    assert (read_image(write_image(pic, tmp_path/'b.webp')).a==a).all()
    assert read_image(write_image(pic, tmp_path/'c.webp', 80)).quality is None

def test_too_large_for_its_format_is_said_before_the_work(tmp_path, model):
    Image.new('RGB', (9000,1)).save(tmp_path/'a.png')
    def never(_): pytest.fail('it worked')
    with pytest.raises(ImageError, match='at most 16383'): upscale_file(tmp_path/'a.png', tmp_path/'a.webp', model=model, progress=never)
    with pytest.raises(OSError, match='a.png is no folder'): upscale_file(tmp_path/'a.png', tmp_path/'a.png'/'sub'/'b.png', model=model, progress=never)

# --- what files say that Pillow or tifffile alone would lose, or take for something else

def swapped_profile():
    "An ICC profile whose red and green have changed places, under another name."
    return ICC.replace('sRGB'.encode('utf-16-be'), 'swap'.encode('utf-16-be')).replace(b'sRGB', b'swap').replace(b'rXYZ', b'????').replace(b'gXYZ', b'rXYZ').replace(b'????', b'gXYZ')

@pytest.mark.parametrize('kw', [dict(imagej=True), dict(ome=True), dict()])
def test_what_programs_say_of_pages_is_not_said_of_one(kw, tmp_path, model):
    tifffile.imwrite(tmp_path/'a.tif', np.random.default_rng(0).integers(0, 65536, (3,24,32), np.uint16), photometric='minisblack', **kw)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        upscale_file(tmp_path/'a.tif', tmp_path/'b.tif', model=model)
    assert tifffile.imread(tmp_path/'b.tif').shape==(48,64)

@pytest.mark.parametrize('dtype', [np.uint8,np.uint16])
def test_a_channel_that_is_not_said_to_be_alpha_is_none(dtype, tmp_path):
    a = noise(6, 8, 4, dtype)
    tifffile.imwrite(tmp_path/'a.tif', a, photometric='rgb', extrasamples=['unspecified'])
    p = read_image(tmp_path/'a.tif')
    assert p.mode=='RGB' and (p.a==a[...,:3]).all() and 'last channel is left out' in p.notes[0]

def test_the_preview_of_a_raw_picture_is_not_the_picture(tmp_path):
    with tifffile.TiffWriter(tmp_path/'raw.tif') as t:
        t.write(noise(24, 32, 3), photometric='rgb', subfiletype=1, subifds=1)
        t.write(noise(240, 320, 1, np.uint16), photometric='minisblack')
    with pytest.raises(ImageError, match='preview of a raw picture'): read_image(tmp_path/'raw.tif')

def test_signed_and_volumetric_tiffs_are_refused(tmp_path):
    tifffile.imwrite(tmp_path/'a.tif', np.zeros((6,8), np.int8))
    with pytest.raises(ImageError, match='holds int8 values'): read_image(tmp_path/'a.tif')
    tifffile.imwrite(tmp_path/'v.tif', np.zeros((16,32,32), np.uint16), volumetric=True, tile=(16,32,32), photometric='minisblack')
    with pytest.raises(ImageError, match='volume of 16 planes'): read_image(tmp_path/'v.tif')

def test_a_compression_that_pillow_does_not_know(tmp_path):
    a = noise(16, 24, 3)
    tifffile.imwrite(tmp_path/'a.tif', a, photometric='rgb', compression='jpeg2000', compressionargs=dict(level=0, reversible=True))
    assert (read_image(tmp_path/'a.tif').a==a).all()

@pytest.mark.parametrize('dtype', [np.uint8,np.uint16])
def test_code_points_of_colour_are_kept(dtype, tmp_path, model):
    import imagecodecs
    png,chunk = imagecodecs.png_encode(noise(6, 8, 3, dtype)),png_chunk(b'cICP', bytes([12,13,0,1]))
    (tmp_path/'a.png').write_bytes(png[:33]+chunk+png[33:])
    upscale_file(tmp_path/'a.png', tmp_path/'b.png', model=model)
    assert chunk in (tmp_path/'b.png').read_bytes()

@pytest.mark.parametrize('suffix', ['bmp','gif','tga','ppm','jp2'])
@pytest.mark.parametrize('mode', ['RGB','L'])
def test_colours_are_made_srgb_where_a_profile_has_no_place(suffix, mode, tmp_path):
    im = Image.new(mode, (8,8), (200,30,60) if mode=='RGB' else 90)
    im.save(tmp_path/'a.png', icc_profile=swapped_profile())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        upscale_file(tmp_path/'a.png', tmp_path/f'b.{suffix}', scale=1)
    got = read_image(tmp_path/f'b.{suffix}').a[3,3]
    if mode=='RGB': assert np.abs(got-ImageCms.profileToProfile(im, io.BytesIO(swapped_profile()), ImageCms.createProfile('sRGB')).getpixel((3,3))).max()<=2 and got[1]>got[0]
    else: assert any("ICC profile can't be applied" in str(o.message) for o in said) and abs(int(got[0])-90)<=1

def test_alpha_stays_where_colours_are_made_srgb(tmp_path):
    Image.new('RGBA', (8,8), (200,30,60,77)).save(tmp_path/'a.png', icc_profile=swapped_profile())
    upscale_file(tmp_path/'a.png', tmp_path/'b.tga', scale=1)
    assert read_image(tmp_path/'b.tga').a[3,3,3]==77

def test_a_large_profile(tmp_path, model):
    icc = np.random.default_rng(0).bytes(1_500_000)
    Image.fromarray(noise(6, 8, 3)).save(tmp_path/'a.tif', icc_profile=icc)
    upscale_file(tmp_path/'a.tif', tmp_path/'b.png', model=model)
    assert read_image(tmp_path/'b.png').icc==icc
    assert PngImagePlugin.MAX_TEXT_CHUNK<2**21, 'what others read has its own limit'

def test_depth_that_pillow_loses_is_told(tmp_path):
    import imagecodecs
    a = noise(6, 8, 3, np.uint16)
    (tmp_path/'a.ppm').write_bytes(b'P6\n# made by hand\n8 6\n65535\n'+a.astype('>u2').tobytes())
    (tmp_path/'a.jp2').write_bytes(imagecodecs.jpeg2k_encode(a, level=0))
    for n in ('a.ppm','a.jp2'): assert read_image(tmp_path/n).notes==['its 16 bits are read as 8'], n
    Image.fromarray(noise(6, 8, 3)).save(tmp_path/'b.jp2')
    Image.fromarray(noise(6, 8, 3)).save(tmp_path/'b.ppm')
    for n in ('b.ppm','b.jp2'): assert not read_image(tmp_path/n).notes

@pytest.mark.skipif(not features.check('avif'), reason='this Pillow has no AVIF')
def test_hdr_is_told(tmp_path):
    Image.fromarray(noise(16, 16, 3)).save(tmp_path/'a.avif')
    data = bytearray((tmp_path/'a.avif').read_bytes())
    assert not read_image(bytes(data)).notes
    i = data.find(b'colrnclx')
    assert i>0
    data[i+10:i+12] = 0,16
    assert 'HDR' in read_image(bytes(data)).notes[0]

def test_a_jpegs_comment_and_iptc_are_kept(tmp_path, model):
    iptc = b'\x1c\x02\x50\x00\x08Somebody'
    app13 = b'Photoshop 3.0\0'+b'8BIM'+struct.pack('>HHI', 0x404, 0, len(iptc))+iptc+b'\0'*(len(iptc)%2)
    Image.fromarray(noise(16, 16, 3)).save(tmp_path/'a.jpg', comment='hello world', extra=b'\xff\xed'+struct.pack('>H', 2+len(app13))+app13, exif=exif(1))
    upscale_file(tmp_path/'a.jpg', tmp_path/'b.jpg', model=model)
    from PIL import IptcImagePlugin
    with Image.open(tmp_path/'b.jpg') as im:
        assert im.info['comment']==b'hello world' and IptcImagePlugin.getiptcinfo(im)=={(2,80):b'Somebody'} and im.getexif()[E.Model]=='Camera'

@pytest.mark.parametrize('suffix', ['jpg','png','tif'])
def test_the_white_point_is_kept(suffix, tmp_path, model):
    e = Image.Exif()
    e[E.WhitePoint] = (.25,.5)
    Image.fromarray(noise(16, 16, 3)).save(tmp_path/'a.jpg', exif=e)
    upscale_file(tmp_path/'a.jpg', tmp_path/f'b.{suffix}', model=model)
    with Image.open(tmp_path/f'b.{suffix}') as im: assert [float(o) for o in im.getexif()[E.WhitePoint]]==[.25,.5]

def test_where_on_earth_pixels_lie_is_not_said_of_others(tmp_path, model):
    tifffile.imwrite(tmp_path/'a.tif', noise(16, 16, 3), photometric='rgb', extratags=[(33550,12,3,(10.,10.,0.),True)])
    upscale_file(tmp_path/'a.tif', tmp_path/'b.jpg', model=model)
    with Image.open(tmp_path/'b.jpg') as im: assert 33550 not in im.getexif()

def test_xmp_says_nothing_that_is_not_so(tmp_path, model):
    xmp = b'''<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description dc:title="A title" hdrgm:Version="1.0" GCamera:MotionPhoto='1' exif:PixelXDimension="16" tiff:ImageLength="16"/><GCamera:MicroVideoOffset>9</GCamera:MicroVideoOffset><tiff:ImageWidth>16</tiff:ImageWidth></x:xmpmeta>'''
    Image.fromarray(noise(16, 16, 3)).save(tmp_path/'a.jpg', xmp=xmp)
    for n in ('b.jpg','b.tif','b.png'):
        upscale_file(tmp_path/'a.jpg', tmp_path/n, model=model)
        assert read_image(tmp_path/n).xmp==b'''<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description dc:title="A title" exif:PixelXDimension="32" tiff:ImageLength="32"/><tiff:ImageWidth>32</tiff:ImageWidth></x:xmpmeta>''', n

def test_grey_colours_under_a_profile_of_rgb_stay_rgb(tmp_path):
    Image.new('L', (8,8), 90).convert('P').save(tmp_path/'a.png', icc_profile=ICC)
    assert read_image(tmp_path/'a.png').mode=='RGB'
    upscale_file(tmp_path/'a.png', tmp_path/'b.jpg', scale=1)
    with Image.open(tmp_path/'b.jpg') as im: assert im.mode=='RGB'

@pytest.mark.parametrize('head,says', [(b'\0\0\0\x18ftypheic', 'HEIC'), (b'\0\0\0\x18ftypmif1', 'HEIC'), (b'\xff\n'+b'\0'*10, 'JPEG XL'), (b'\0\0\0\x0cJXL \r\n\x87\n', 'JPEG XL'), (b'\0\0\0\x18ftypisom', 'video')])
def test_a_format_that_cannot_be_read_is_named(head, says):
    with pytest.raises(ImageError, match=says): read_image(head+b'\0'*20)

def test_an_address_is_no_file():
    with pytest.raises(ImageError, match='fetch it'): read_image('https://example.org/a.png')
