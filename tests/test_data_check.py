"`sr_data` and what `check_images` finds."
import numpy as np, pytest
from PIL import Image
from sr_fastai import check as C
from sr_fastai.check import check_images, sr_data
from sr_fastai.div2k import untar_div2k

def picture(seed, h=96, w=120):
    "Smooth, so that it is the same photograph at another size too."
    x = np.random.default_rng(seed).integers(0, 256, (6,8,3), dtype=np.uint8)
    return np.array(Image.fromarray(x).resize((w,h), Image.Resampling.BICUBIC))

def save(x, f, **kw):
    f.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(x).save(f, **kw)

@pytest.fixture
def div2k(tmp_path):
    for split,nums in (('train',(1,2,3)), ('valid',(801,))):
        for n in nums:
            save(picture(n), tmp_path/f'DIV2K_{split}_HR'/f'{n:04d}.png')
            save(picture(n, 48, 60), tmp_path/f'DIV2K_{split}_LR_bicubic'/'X2'/f'{n:04d}x2.png')
    return tmp_path

def kinds(path, *args, **kw): return [(o.kind,o.file.name) for o in check_images(path, *args, size=32, progress=False, **kw)[0]]

def test_nothing_to_find(div2k): assert check_images(div2k, size=32, progress=False)==([],8)

def test_pairs_of_div2k(div2k):
    save(picture(2, 40, 60), div2k/'DIV2K_train_LR_bicubic'/'X2'/'0002x2.png')
    (div2k/'DIV2K_train_HR'/'0003.png').unlink()
    (div2k/'DIV2K_valid_LR_bicubic'/'X2'/'0801x2.png').unlink()
    assert kinds(div2k)==[('no pair','0003x2.png'),('no pair','0801.png'),('wrong size','0002.png')]

@pytest.mark.parametrize('change', [lambda x: x, lambda x: x[::2,::2], lambda x: (x*.8).astype(np.uint8)])
def test_training_image_in_validation(div2k, change):
    "Also smaller, or darker, than in training."
    save(change(picture(1)), div2k/'DIV2K_valid_HR'/'0801.png')
    assert ('both','0001.png') in kinds(div2k)

def test_different_photographs_are_no_doubles(tmp_path):
    for i in range(40): save(picture(i), tmp_path/f'{i}.png')
    assert kinds(tmp_path)==[]

def test_flat_images_are_no_doubles(tmp_path):
    for i in range(3): save(np.full((96,120,3), i*50, np.uint8)+np.array([0,1,2], np.uint8), tmp_path/f'{i}.png')
    assert kinds(tmp_path)==[]

def test_own_pairs(tmp_path):
    for i in range(4): save(picture(i), tmp_path/'hr'/f'{i}.jpg')
    for name in ('0.jpg','1x2.png','3x2.webp'): save(picture(0, 48, 60), tmp_path/'lr'/name)
    assert kinds(tmp_path/'hr', tmp_path/'lr')==[('no pair','2.jpg')]

def test_the_files_that_training_reads(tmp_path):
    "No others, such as thumbnails in hidden folders, and all of them."
    from sr_fastai.data import sr_dataloaders
    for i in range(3): save(picture(i), tmp_path/'a'/f'{i}.png')
    save(picture(3), tmp_path/'b'/'3.gif')
    (tmp_path/'a'/'linked').symlink_to(tmp_path/'b')
    for n in ('.thumbs/0.png','.1.png','drawing.svg'):
        (tmp_path/'a'/n).parent.mkdir(exist_ok=True)
        (tmp_path/'a'/n).write_text('x')
    assert check_images(tmp_path/'a', size=32, progress=False)==([],4)
    dls = sr_dataloaders(tmp_path/'a', size=32, bs=1, cache=tmp_path/'cache')
    assert len(dls.train_ds)+len(dls.valid_ds)==4

def test_a_scale_that_is_none(tmp_path, capsys):
    save(picture(0), tmp_path/'a.png')
    assert sr_data(['check',str(tmp_path),'--scale','0'])==2 and capsys.readouterr().err=='sr_data: scale must be 2 or more, not 0\n'

def test_alpha_only_where_it_shows(tmp_path):
    for a,name in ((255,'opaque.png'), (100,'glass.png')): Image.fromarray(np.dstack([picture(a),np.full((96,120), a, np.uint8)])).save(tmp_path/name)
    assert kinds(tmp_path)==[('transparent','glass.png')]

def test_empty_and_missing(tmp_path, capsys):
    (tmp_path/'notes.txt').write_text('x')
    assert sr_data(['check',str(tmp_path)])==2 and 'holds no images' in capsys.readouterr().err
    assert sr_data(['check',str(tmp_path/'x')])==2 and 'is not a folder' in capsys.readouterr().err

def test_exit_codes_and_words(div2k, capsys):
    assert sr_data(['check',str(div2k),'--size','32'])==0
    (div2k/'DIV2K_train_HR'/'0001.png').write_bytes(b'no image')
    assert sr_data(['check',str(div2k),'--size','32'])==1
    out = capsys.readouterr().out
    assert '0001.png cannot be read' in out and '8 images looked at, 1 would spoil a training: 1 broken' in out

def test_get_and_cache(tmp_path, monkeypatch, capsys):
    from sr_fastai import data, div2k
    for m in (C,data,div2k): monkeypatch.setattr(m, 'fastai_path', lambda k: tmp_path/k)
    assert sr_data(['get','--sample'])==0
    path = capsys.readouterr().out.strip()
    data.div2k_dataloaders(path, size=16)
    assert sr_data(['cache'])==0 and '0.01 GB' in capsys.readouterr().out
    assert sr_data(['cache','--clear'])==0 and 'removed' in capsys.readouterr().out
    assert not list((tmp_path/'data'/'decoded').rglob('pixels.u8'))
    assert sr_data(['get','--scale','5'])==2 and 'has no x5' in capsys.readouterr().err

def test_what_only_training_could_read(tmp_path):
    "TIFFs of floats and of 16 bits: looked at as they are read."
    import tifffile
    a = picture(1).astype(np.float32)/255
    tifffile.imwrite(tmp_path/'float.tif', a, photometric='rgb')
    tifffile.imwrite(tmp_path/'clear.tif', (np.dstack([a, np.linspace(0, 1, a[...,0].size).reshape(a.shape[:2])])*65535).astype(np.uint16), photometric='rgb', extrasamples=['unassalpha'])
    assert ('transparent','clear.tif') in (found := kinds(tmp_path)) and not any(k=='broken' for k,_ in found)
