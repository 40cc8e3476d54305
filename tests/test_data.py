"Faults, properties and the cache of `sr_fastai.data`."
import json, os, pickle, random, subprocess, sys, warnings
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from fastai.data.all import ItemTransform
from sr_fastai import cache as C, data as D
from sr_fastai.cache import PixelCache, read_rgb
from sr_fastai.data import *
from sr_fastai.resample import bicubic_down

def save(x, f):
    f.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(x).save(f)

def lr_image(seed, h=24, w=30): return np.random.default_rng(seed).integers(0, 256, (h,w,3), dtype=np.uint8)
def enlarge(x, s): return x.repeat(s, 0).repeat(s, 1)

@pytest.fixture
def div2k(tmp_path):
    "Four and two images in DIV2K's layout at x2 and x3, HR the repeated pixels of LR, so that what belongs together can be seen in any crop."
    root = tmp_path/'div2k'
    for split,nums in (('train',range(1,5)), ('valid',range(801,803))):
        for n in nums:
            x = lr_image(n)
            save(enlarge(x, 6), root/f'DIV2K_{split}_HR'/f'{n:04d}.png')
            for s in (2,3): save(enlarge(x, 6//s), root/f'DIV2K_{split}_LR_bicubic'/f'X{s}'/f'{n:04d}x{s}.png')
    return root

@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch): monkeypatch.setattr(D, 'fastai_path', lambda k: tmp_path/'fastai'/k)

@pytest.fixture
def opts(tmp_path): return dict(cache=tmp_path/'cache', size=12, bs=4, crops=8, seed=0, device=torch.device('cpu'))

def belong(lr, hr):
    s = hr.shape[-1]//lr.shape[-1]
    return torch.equal(torch.Tensor(hr[...,::s,::s]), torch.Tensor(lr)) and torch.equal(torch.Tensor(hr[...,s-1::s,s-1::s]), torch.Tensor(lr))

def as_image(x): return np.ascontiguousarray((torch.Tensor(x)*255).round().byte().numpy().transpose(1,2,0))

class Foreign(ItemTransform):
    "Somebody else's: it sends a loader through fastai's pipelines."
    def encodes(self, o): return o

# ------------------------------------------------------------------ the sample
def test_sample_is_copied_whole(tmp_path):
    p = untar_div2k(sample=True, dest=tmp_path)
    assert len(div2k_lr(p, 4))==12 and [f.name for f in tmp_path.iterdir() if not f.name.endswith('.lock')]==['div2k_sample']
    before = (p/'DIV2K_train_HR/0001.png').stat()
    assert untar_div2k(sample=True, dest=tmp_path)==p and (p/'DIV2K_train_HR/0001.png').stat()==before

def test_damaged_sample_is_copied_again(tmp_path):
    p = untar_div2k(sample=True, dest=tmp_path)
    (p/'DIV2K_train_HR/0001.png').write_bytes(b'half')
    (p/'DIV2K_valid_HR/0801.png').unlink()
    untar_div2k(sample=True, dest=tmp_path)
    assert len(div2k_lr(p, 2))==12 and read_rgb(p/'DIV2K_train_HR/0001.png').shape==(3,432,432)

def test_what_is_saved_beside_the_sample_stays(tmp_path):
    p = untar_div2k(sample=True, dest=tmp_path)
    (p/'models').mkdir()
    (p/'models'/'mine.pth').write_bytes(b'hours of work')
    (p/'DIV2K_train_HR/0001.png').write_bytes(b'half')
    untar_div2k(sample=True, dest=tmp_path)
    assert (p/'models'/'mine.pth').read_bytes()==b'hours of work' and len(div2k_lr(p, 2))==12

def test_sample_lr_is_matlabs():
    root = untar_div2k(sample=True)
    for s in (2,3,4):
        for f in div2k_lr(root, s)[::5]: np.testing.assert_array_equal(bicubic_down(np.array(Image.open(div2k_hr(f))), s), np.array(Image.open(f)))

# ------------------------------------------------------------------ pairs
@pytest.mark.parametrize('scale', [2,3])
def test_crops_and_turns_are_paired(div2k, opts, scale):
    dls = div2k_dataloaders(div2k, scale=scale, **opts)
    seen = 0
    for dl in dls:
        for lr,hr in dl:
            assert lr.shape[1:]==(3,12,12) and hr.shape[1:]==(3,12*scale,12*scale) and belong(lr, hr)
            seen += len(lr)
    assert seen==4*8+2

def test_all_eight_turns_come_up():
    x = np.arange(3*4*4, dtype=np.uint8).reshape(3,4,4)
    got = {PairedDihedral().pair(x, x, random.Random(i))[0].tobytes() for i in range(100)}
    assert got=={np.ascontiguousarray(np.rot90(y, k, (1,2))).tobytes() for y in (x, x[:,:,::-1]) for k in range(4)}

def test_crops_reach_every_place():
    "Corners too, and never beyond; where HR has a row too many or too few for LR, neither shows it."
    lr = np.stack(np.mgrid[:9,:7,:1])[...,0].astype(np.uint8)
    for cut in (0,1,-1):
        hr = enlarge(lr.transpose(1,2,0), 3).transpose(2,0,1)
        hr = hr[:,:-1] if cut==1 else np.pad(hr, ((0,0),(0,1),(0,0))) if cut==-1 else hr
        at = set()
        for i in range(500):
            a,b = PairedCrop(4).pair(lr, hr, random.Random(i))
            assert a.shape==(3,4,4) and b.shape==(3,12,12) and (b[:,::3,::3]==a).all()
            at.add(tuple(a[:2,0,0]))
        assert at=={(t,l) for t in range(9-4+(cut!=1)) for l in range(4)}

def epoch(dl): return [torch.Tensor(hr) for _,hr in dl]
def same(a, b): return len(a)==len(b) and all(torch.equal(x, y) for x,y in zip(a, b))

def test_seed_gives_the_same_batches_with_any_workers(div2k, opts):
    runs = [epoch(div2k_dataloaders(div2k, **opts, num_workers=w).train) for w in (0,0,2)]
    assert same(runs[0], runs[1]) and same(runs[0], runs[2])
    assert not same(runs[0], epoch(div2k_dataloaders(div2k, **{**opts, 'seed':1}).train))

def test_loader_goes_through_pickle(div2k, opts):
    "To workers that start afresh: Python 3.14's, and those of macOS and Windows."
    dl = div2k_dataloaders(div2k, **opts).train
    again = pickle.loads(pickle.dumps(dl))
    assert same(epoch(dl), epoch(again))

def test_epochs_differ_but_validation_does_not(div2k, opts):
    dls = div2k_dataloaders(div2k, **opts)
    assert not same(epoch(dls.train), epoch(dls.train)) and same(epoch(dls.valid), epoch(dls.valid))
    lr,hr = dls.valid.one_batch()
    whole = read_rgb(div2k/'DIV2K_valid_LR_bicubic/X2/0801x2.png')
    np.testing.assert_array_equal((lr[0]*255).round().numpy(), whole[:,30:42,39:51]) # the centre of 72x90

def test_whole_images_in_validation(div2k, opts):
    lr,hr = div2k_dataloaders(div2k, **opts, valid_size=0, val_bs=1).valid.one_batch()
    assert lr.shape==(1,3,72,90) and hr.shape==(1,3,144,180)

def test_fastais_own_path_gives_the_same_kind_of_batches(div2k, opts):
    "A foreign item transform sends the loader through fastai's pipelines."
    from fastai.vision.all import DataBlock
    block = DataBlock(blocks=(SRBlock(TensorLR), SRBlock(TensorHR)), get_items=div2k_lr, get_y=div2k_hr, splitter=div2k_splitter,
                      item_tfms=[PairedCrop(12), PairedDihedral(), Foreign()])
    dls = block.dataloaders(div2k, bs=4, crops=3, cache=opts['cache'])
    assert len(dls.train)==3
    for dl in dls:
        for lr,hr in dl: assert type(lr) is TensorLR and type(hr) is TensorHR and lr.shape[1:]==(3,12,12) and belong(lr, hr)

def test_types_survive_arithmetic(div2k, opts):
    lr,hr = div2k_dataloaders(div2k, **opts).one_batch()
    up = torch.nn.functional.interpolate(lr, scale_factor=2)
    assert torch.nn.functional.mse_loss(up, hr)==0 and torch.nn.functional.l1_loss(hr, up)==0

def test_test_dl_takes_whole_images(div2k, opts):
    dls = div2k_dataloaders(div2k, **opts)
    dl = dls.test_dl(sorted((div2k/'DIV2K_valid_LR_bicubic/X3').glob('*.png')), bs=1)
    assert [b[0].shape for b in dl]==[(1,3,48,60)]*2

# ------------------------------------------------------------------ bad input
def fails(exc, says, f):
    with pytest.raises(exc) as e: f()
    for s in says: assert s in str(e.value), str(e.value)

def test_sizes_that_do_not_match(div2k, opts):
    save(lr_image(0, 70, 90), div2k/'DIV2K_train_LR_bicubic/X2/0003x2.png')
    fails(ValueError, ['0003.png is 180x144','0003x2.png is 90x70'], lambda: div2k_dataloaders(div2k, **opts))

def test_wrong_scale(div2k, opts):
    (div2k/'DIV2K_train_LR_bicubic/X2').rename(div2k/'x'); (div2k/'DIV2K_train_LR_bicubic/X3').rename(div2k/'DIV2K_train_LR_bicubic/X2')
    fails(ValueError, ['0001.png is 180x144','not 1/2 of it'], lambda: div2k_dataloaders(div2k, **opts))

def test_hr_without_lr_and_lr_without_hr(div2k, opts):
    (div2k/'DIV2K_train_LR_bicubic/X2/0002x2.png').unlink()
    fails(FileNotFoundError, ['0002.png has no LR'], lambda: div2k_dataloaders(div2k, **opts))
    (div2k/'DIV2K_train_HR/0002.png').unlink(); (div2k/'DIV2K_train_HR/0004.png').unlink()
    fails(FileNotFoundError, ['0004.png has LR files but no HR'], lambda: div2k_dataloaders(div2k, **opts))

def test_missing_and_empty_folders(div2k, opts, tmp_path):
    fails(FileNotFoundError, ['DIV2K_train_HR is missing','untar_div2k'], lambda: div2k_dataloaders(tmp_path, **opts))
    fails(FileNotFoundError, ['X4 is missing'], lambda: div2k_dataloaders(div2k, scale=4, **opts))
    for f in (div2k/'DIV2K_train_LR_bicubic/X2').iterdir(): f.unlink()
    fails(FileNotFoundError, ['X2 has no PNG files'], lambda: div2k_dataloaders(div2k, **opts))
    (tmp_path/'empty').mkdir()
    fails(FileNotFoundError, ['empty has 0 image files'], lambda: sr_dataloaders(tmp_path/'empty', **opts))
    fails(FileNotFoundError, ['nowhere is not a folder'], lambda: sr_dataloaders(tmp_path/'nowhere', **opts))

def test_batch_larger_than_the_data(div2k, opts):
    fails(ValueError, ['a batch of 33 is more','4 images x 8 crops'], lambda: div2k_dataloaders(div2k, **{**opts, 'bs':33}))

def test_whole_images_of_different_sizes(div2k, opts):
    save(lr_image(0, 80, 90), div2k/'DIV2K_valid_LR_bicubic/X2/0801x2.png')
    save(lr_image(0, 160, 180), div2k/'DIV2K_valid_HR/0801.png')
    fails(ValueError, ['do not make batches of 4: use val_bs=1'], lambda: div2k_dataloaders(div2k, **opts, valid_size=0))
    assert [tuple(lr.shape[2:]) for lr,_ in div2k_dataloaders(div2k, **opts, valid_size=0, val_bs=1).valid]==[(80,90),(72,90)]

def test_image_smaller_than_the_crop(div2k, opts):
    save(lr_image(0, 11, 90), div2k/'DIV2K_train_LR_bicubic/X2/0003x2.png')
    save(lr_image(0, 22, 180), div2k/'DIV2K_train_HR/0003.png')
    fails(ValueError, ['0003x2.png has 90x11 LR pixels','12x12'], lambda: div2k_dataloaders(div2k, **opts))

def test_unreadable_image(div2k, opts):
    f = div2k/'DIV2K_train_HR/0002.png'
    f.write_bytes(f.read_bytes()[:500])
    fails(ValueError, ['0002.png cannot be read as an image','replace it'], lambda: div2k_dataloaders(div2k, **opts))
    with pytest.warns(UserWarning, match='skipped: .*0002.png'): dls = div2k_dataloaders(div2k, **opts, bad='skip')
    assert len(dls.train_ds)==3
    for lr,hr in dls.train: assert belong(lr, hr)

# ------------------------------------------------------------------ the cache
def test_no_file_is_read_after_the_first_start(div2k, opts, monkeypatch):
    "Nor during the training, with foreign transforms either; so a file may break or change meanwhile."
    first = epoch(div2k_dataloaders(div2k, **opts).train)
    dls = div2k_dataloaders(div2k, **opts)
    monkeypatch.setattr(D, 'read_rgb', lambda f: pytest.fail(f'{f} is read again'))
    for f in div2k.rglob('*.png'): f.write_bytes(b'gone')
    assert same(first, epoch(dls.train))
    dls.train.after_item.add([Foreign()])
    for lr,hr in dls.train: assert belong(lr, hr)

def test_second_start_decodes_nothing(div2k, opts, monkeypatch):
    div2k_dataloaders(div2k, **opts)
    monkeypatch.setattr(PixelCache, '_decode', lambda *a: pytest.fail('decoded again'))
    list(div2k_dataloaders(div2k, **opts).train)

def test_cache_with_a_limit(div2k, opts, tmp_path):
    fails(OSError, ['of its limit'], lambda: div2k_dataloaders(div2k, **{**opts, 'cache':PixelCache(tmp_path/'c', max_gb=1e-5)}))
    dls = div2k_dataloaders(div2k, **{**opts, 'cache':PixelCache(tmp_path/'c', max_gb=1)})
    assert dls.train.store is dls.valid.store and all(belong(*b) for dl in dls for b in dl)

def test_hr_is_shared_by_the_scales(div2k, opts):
    dl = [div2k_dataloaders(div2k, scale=s, **{**opts, 'cache':None}).valid for s in (2,3)]
    assert dl[0].store.path==dl[1].store.path and len(dl[1].store)==6+2*6

def cache_of(div2k, opts): return div2k_dataloaders(div2k, **opts).valid.store # opened last, so it knows all

def test_killed_while_writing(div2k, opts):
    c = cache_of(div2k, opts)
    want = {k:c[k].copy() for k in c.entries}
    lines = c.index.read_bytes().splitlines(keepends=True)
    for cut in (len(lines[-1])//2, len(lines[-1])+1):
        c.index.write_bytes(b''.join(lines)[:-cut]) # half a line, then another one gone
        with open(c.pixels, 'ab') as f: f.write(b'rubbish of a process that was killed')
        c2 = cache_of(div2k, opts)
        assert c2.entries.keys()==want.keys() and all((c2[k]==want[k]).all() for k in want)
        for line in c2.index.read_bytes().splitlines(): json.loads(line)

def test_replaced_and_touched_files(div2k, opts, monkeypatch):
    c = cache_of(div2k, opts)
    f = div2k/'DIV2K_train_HR/0001.png'
    os.utime(f, ns=(1,1)) # touched only: its content decides
    monkeypatch.setattr(PixelCache, '_decode', lambda *a: pytest.fail('decoded again'))
    cache_of(div2k, opts)
    monkeypatch.undo()
    save(lr_image(99, 144, 180), f)
    c2 = cache_of(div2k, opts)
    key = next(k for k in c2.entries if k.endswith('DIV2K_train_HR/0001.png'))
    np.testing.assert_array_equal(c2[key], lr_image(99, 144, 180).transpose(2,0,1))

def test_other_version_is_made_again(div2k, opts):
    c = cache_of(div2k, opts)
    c.index.write_text('{"version": 0}\n{"other": "layout"}\n')
    with pytest.warns(UserWarning, match='another version'): c2 = cache_of(div2k, opts)
    assert c2.entries.keys()==c.entries.keys()

def test_no_room(div2k, opts, tmp_path, monkeypatch):
    c = PixelCache(tmp_path/'c', max_gb=1e-6)
    f = div2k/'DIV2K_train_HR/0001.png'
    fails(OSError, ['of its limit','Make room'], lambda: c.add({'k':(f,read_rgb)}))
    monkeypatch.setattr(C.shutil, 'disk_usage', lambda p: type('U', (), dict(free=1000)))
    fails(OSError, ['are free there'], lambda: PixelCache(tmp_path/'c').add({'k':(f,read_rgb)}))
    assert not c.pixels.exists() or c.pixels.stat().st_size==0

def test_cache_travels_to_a_worker_without_its_pixels(div2k, opts):
    import pickle
    c = cache_of(div2k, opts)
    key = next(iter(c.entries))
    want = c[key].copy()
    b = pickle.dumps(c)
    assert len(b)<20_000 and (pickle.loads(b)[key]==want).all()

@pytest.mark.parametrize('mode,want', [('L',3),('RGBA',3),('P',3),('I;16',3),('1',3),('CMYK',3)])
def test_any_mode_becomes_rgb(tmp_path, mode, want):
    f = tmp_path/('x.tif' if mode=='CMYK' else 'x.png')
    im = Image.fromarray(np.full((4,6), 40000, np.uint16)) if mode=='I;16' else Image.fromarray(lr_image(0,4,6)).convert(mode)
    im.save(f)
    x = read_rgb(f)
    assert x.shape==(want,4,6) and x.dtype==np.uint8
    if mode=='I;16': assert (x==round(40000/257)).all()

def test_photographs_are_upright(tmp_path):
    im,exif = Image.fromarray(lr_image(0,4,6)),Image.Exif()
    exif[0x0112] = 6
    im.save(tmp_path/'x.png', exif=exif)
    assert read_rgb(tmp_path/'x.png').shape==(3,6,4)

# ------------------------------------------------------------------ own photographs
def test_own_photographs(tmp_path, opts):
    for i in range(6): save(lr_image(i, 61+i, 75), tmp_path/'p'/f'{i%2}'/f'{i}.jpg') # sides that 3 does not divide
    dls = sr_dataloaders(tmp_path/'p', scale=3, **opts)
    assert (len(dls.train_ds),len(dls.valid_ds))==(5,1)
    for dl in dls:
        for lr,hr in dl: assert lr.shape[2:]==(12,12) and hr.shape[2:]==(36,36)

def test_own_pairs(div2k, opts):
    dls = sr_dataloaders(div2k/'DIV2K_train_HR', div2k/'DIV2K_train_LR_bicubic/X3', scale=3, **opts)
    for lr,hr in dls.train: assert belong(lr, hr)
    (div2k/'DIV2K_train_LR_bicubic/X3/0004x3.png').unlink()
    fails(FileNotFoundError, ['0004.png has no LR','or 0004x3'], lambda: sr_dataloaders(div2k/'DIV2K_train_HR', div2k/'DIV2K_train_LR_bicubic/X3', scale=3, **opts))

# ------------------------------------------------------------------ options
from sr_fastai.degrade import Bicubic, Degrade, GaussianNoise, PoissonNoise, Sometimes, Step, bicubic, seed_of, unknown, wild

def test_colours_are_permuted_alike(div2k, opts):
    seen = set()
    x = np.arange(3*2*2, dtype=np.uint8).reshape(3,2,2)
    for i in range(100):
        a,b = PairedPermute().pair(x, x, random.Random(i))
        assert (a==b).all()
        seen.add(tuple(a[:,0,0]))
    assert len(seen)==6
    for lr,hr in div2k_dataloaders(div2k, **opts, colours=True).train: assert belong(lr, hr)

@pytest.mark.parametrize('tfm', [PairedCrop(5), PairedDihedral(), PairedPermute()])
def test_transforms_of_a_batch(tfm):
    "As batch transforms they draw for each pair, on tensors of any type."
    for dtype in (torch.uint8, torch.float32):
        lr = TensorLR(torch.randint(0, 256, (40,3,9,9)).to(dtype))
        hr = TensorHR(lr.repeat_interleave(2,2).repeat_interleave(2,3))
        a,b = tfm((lr,hr), split_idx=0)
        assert type(a) is TensorLR and type(b) is TensorHR and a.dtype==dtype and belong(a, b)
        if not isinstance(tfm, PairedCrop): assert len({tuple(x.flatten()[:20].tolist()) for x in tfm((lr[:1].expand(40,3,9,9),hr[:1].expand(40,3,18,18)), split_idx=0)[0]})>=3
    a,b = tfm((lr,hr), split_idx=1)
    assert a.shape[-1]==(5 if isinstance(tfm, PairedCrop) else 9) and belong(a, b)

def test_batch_transforms_in_a_datablock(div2k, opts):
    from fastai.vision.all import DataBlock
    block = DataBlock(blocks=(SRBlock(TensorLR), SRBlock(TensorHR)), get_items=div2k_lr, get_y=div2k_hr, splitter=div2k_splitter,
                      item_tfms=PairedCrop(12), batch_tfms=[PairedDihedral(), PairedPermute()])
    for dl in block.dataloaders(div2k, bs=4, cache=opts['cache']):
        for lr,hr in dl: assert lr.dtype==torch.float32 and belong(lr, hr)

def test_cutblur():
    lr,hr = TensorLR(torch.zeros(4,3,8,8)),TensorHR(torch.ones(4,3,16,16))
    whole = set()
    for _ in range(60):
        a,b = CutBlur()((lr,hr), split_idx=0)
        assert a.shape==(4,3,16,16) and type(a) is TensorLR and (b==1).all() and (hr==1).all() and (lr==0).all()
        assert .1<a.mean()<.9
        # a rectangle of HR in LR, or of LR in HR, which then shows at every side
        ones = a[0,0].nonzero()
        whole.add((ones.amax(0)-ones.amin(0)).tolist()==[15,15])
    assert whole=={True,False}
    a,b = CutBlur()((lr,hr), split_idx=1) # a network that learnt from large LR is validated with such
    assert a.shape==hr.shape and not a.any() and b is hr

def test_lr_made_once_for_each_image(div2k, opts):
    how = Degrade(Bicubic(2), GaussianNoise(10))
    dls = div2k_dataloaders(div2k, track=how, valid_size=0, val_bs=1, **opts)
    lr,hr = dls.valid.one_batch()
    np.testing.assert_array_equal(as_image(lr[0]), how(as_image(hr[0]), seed_of('0801.png')))
    assert same(epoch(dls.valid), epoch(dls.valid))

def test_lr_made_anew_for_each_crop(div2k, opts):
    how = Degrade(Bicubic(2), GaussianNoise(10))
    dls = div2k_dataloaders(div2k, track=how, fresh=True, **{**opts, 'flips':False})
    (lr,hr),(lr2,_) = dls.valid.one_batch(),dls.valid.one_batch()
    assert lr.shape[-2:]==(12,12) and hr.shape[-2:]==(24,24) and torch.equal(lr, lr2)
    # what was degraded is the crop that HR shows: noise of 10 levels apart, and no shift
    clean = torch.tensor(np.stack([bicubic_down(as_image(h), 2).transpose(2,0,1) for h in hr]))
    d = (torch.Tensor(lr)*255-clean)[...,3:-3,3:-3]
    assert 7<d.std()<13 and abs(d.mean())<2
    assert same(epoch(dls.train), epoch(div2k_dataloaders(div2k, track=how, fresh=True, **{**opts, 'flips':False}).train))

def test_margin_of_fresh_degradation_hides_the_crops_edge(div2k, opts):
    "Made anew for the crop or once for the image, a filter without chance gives the same pixels."
    kw = {**opts, 'flips':False, 'crops':4}
    a = div2k_dataloaders(div2k, track=bicubic(2), fresh=True, **kw).valid.one_batch()
    b = div2k_dataloaders(div2k, track=bicubic(2), **kw).valid.one_batch()
    for x,y in zip(a, b): assert torch.equal(torch.Tensor(x), torch.Tensor(y))

def test_fresh_crops_begin_at_any_pixel(div2k, opts):
    "Of HR, whose pixels are repeated six times here: so the first edge in a crop tells where it begins."
    dls = div2k_dataloaders(div2k, scale=2, track=bicubic(2), fresh=True, **{**opts, 'flips':False, 'crops':40, 'size':20})
    begins = set()
    for lrs,hrs in dls.train:
        for lr,hr in zip(map(as_image, lrs), map(as_image, hrs)):
            assert (np.abs(bicubic_down(hr, 2)[2:-2,2:-2].astype(int)-lr[2:-2,2:-2])==0).all()
            begins.add(tuple(int((np.diff(hr.astype(int), axis=ax)!=0).any((1-ax,2)).argmax())%6 for ax in (0,1)))
    assert len(begins)==36

@pytest.mark.parametrize('size', [9, 20])
def test_zoom_makes_photographs_smaller(tmp_path, size):
    "A ramp of a level every two pixels grows by as much as the square that was cut is larger; never beyond the image."
    hr = np.broadcast_to(np.arange(80)[None,None]*2, (3,60,80)).astype(np.uint8)
    lr = np.ascontiguousarray(hr[:,::2,::2])
    rng,crop = random.Random(0),FreshCrop(size, zoom=.5)
    steps = []
    for _ in range(200):
        a,b = crop.pair(lr, hr, rng)
        assert a.shape==(3,size,size) and b.shape==(3,2*size,2*size) and b.dtype==np.uint8
        mid = b[0,size].astype(float)
        steps.append((mid[-5]-mid[4])/(len(mid)-9)/2)
    most = min(2, 60/(2*size))
    assert 1-.05<min(steps)<1.1 and most-.15<max(steps)<most+.05
    a,b = crop.pair(lr, hr, None)
    assert all(map(np.array_equal, (a, b), PairedCrop(size).pair(lr, hr, None))) # in validation nothing is made smaller

def test_zoom_along_fastais_own_path(div2k, opts):
    "With a transform of somebody else's, samples are tensors."
    kw = dict(track=bicubic(2), fresh=True, zoom=.6, **opts)
    dls = div2k_dataloaders(div2k, **kw)
    dls.train.after_item.add([Foreign()])
    lr,hr = dls.train.one_batch()
    assert type(lr) is TensorLR and type(hr) is TensorHR and lr.shape==(4,3,12,12) and hr.shape==(4,3,24,24)
    for x,y in zip(map(as_image, lr), map(as_image, hr)): assert (bicubic_down(y, 2)[2:-2,2:-2]==x[2:-2,2:-2]).all()
    assert same(epoch(div2k_dataloaders(div2k, **kw).train), epoch(div2k_dataloaders(div2k, **kw).train))

def test_the_cache_tells_functions_apart(div2k, opts):
    "All lambdas have one name; what they do, and with which values, is what counts."
    hr = div2k/'DIV2K_train_HR'
    def halve(how): return torch.Tensor(sr_dataloaders(hr, how=how, **{**opts, 'flips':False}).valid.one_batch()[0])
    def add(n): return lambda x: np.stack([x[::2,::2,c]//2+n for c in range(3)], -1)
    a,b,c,d = halve(lambda x: x[::2,::2]),halve(lambda x: x[1::2,1::2]//4),halve(add(1)),halve(add(100))
    assert not torch.equal(a, b) and c.max()*255<=128.5 and d.min()*255>=99.5
    assert torch.equal(d, halve(add(100)))
    with pytest.raises(TypeError, match='Degrade. or a Python function'): ReadImage(TensorLR, np.ones(3).sum).how # which is of no module
    assert '0x' not in ReadImage(TensorLR, add(1)).how # else another process would not know it
    class Shrink:
        def down(self, x): return x[::2,::2]
    fails(TypeError, ['no method'], lambda: halve(Shrink().down)) # whose settings nobody sees
    fails(TypeError, ['Python function'], lambda: halve(np.abs))

def test_the_cache_knows_what_a_step_of_one_s_own_does():
    "Its name and settings stay, its code changes, as in a notebook."
    def reading(n):
        class Darken(Step):
            def apply(self, x, r): return x//n
        return ReadImage(TensorLR, Degrade(Bicubic(2), Sometimes(Darken()))).how
    def other():
        class Darken(Step):
            def apply(self, x, r): return x-1
        return ReadImage(TensorLR, Degrade(Bicubic(2), Sometimes(Darken()))).how
    assert reading(2)==reading(2)!=other()
    assert ReadImage(TensorLR, Degrade(Bicubic(2))).how==repr(Degrade(Bicubic(2)))

def test_the_cache_knows_all_that_makes_lr():
    "What stands in static methods, defaults by keyword and long arrays too; by content, not by place in memory or order of a set."
    def how(f): return ReadImage(TensorLR, f).how
    def step(by, table=None):
        class Darken(Step):
            def __init__(self): self.table = table
            @staticmethod
            def apply(x, r): return x*by
        return Degrade(Bicubic(2), Darken())
    long = np.zeros(5000)
    other = long.copy()
    other[2500] = 1
    def keyword(s):
        def f(x, *, s=s): return x[::2,::2]//s
        return f
    def closed(v): return lambda x: x[::2,::2]+v
    for a,b,same in ((step(2),step(3),step(2)), (step(2, long),step(2, other),step(2, long.copy())), (keyword(1),keyword(2),keyword(1)), (closed(long),closed(other),closed(long.copy())), (closed(keyword(1)),closed(keyword(2)),closed(keyword(1))),
                     *((closed(torch.tensor(1., dtype=d, requires_grad=True)),closed(torch.tensor(2., dtype=d)),closed(torch.tensor(1., dtype=d))) for d in (torch.float32,torch.bfloat16))):
        assert how(a)==how(same)!=how(b)
    code = "from sr_fastai.data import ReadImage, TensorLR; print(ReadImage(TensorLR, lambda x: x[::2,::2] if x.dtype.name in {'uint8','int8','float32'} else x).how)"
    assert len({subprocess.run([sys.executable, '-W', 'ignore', '-c', code], env={**os.environ, 'PYTHONHASHSEED':o}, capture_output=True, text=True, check=True).stdout for o in '12'})==1

def test_wrong_degradations(div2k, opts):
    fails(ValueError, ['makes x4, not x2','give scale=4'], lambda: div2k_dataloaders(div2k, track=wild(4), **opts))
    fails(ValueError, ['needs a Degrade'], lambda: div2k_dataloaders(div2k, fresh=True, **opts))
    fails(ValueError, ['zoom=0.5','fresh=True'], lambda: div2k_dataloaders(div2k, zoom=.5, **opts))
    fails(ValueError, ['zoom','not 0'], lambda: div2k_dataloaders(div2k, track=bicubic(2), fresh=True, zoom=0, **opts))

def test_wild_track_pairs_each_lr_with_its_hr():
    root = untar_div2k(sample=True)
    for f in div2k_lr(root, 4, 'wild'): assert read_rgb(f).shape==(3,108,108) and read_rgb(div2k_hr(f)).shape==(3,432,432)

def test_validation_photographs_named_in_two_ways_are_not_trained_on(tmp_path, monkeypatch):
    "`--data p --valid /abs/p/val`: the folder lies within the other, and is named from elsewhere."
    monkeypatch.chdir(tmp_path)
    (tmp_path/'p'/'val').mkdir(parents=True)
    for i in range(4): Image.fromarray(np.random.default_rng(i).integers(0, 256, (48,48,3), dtype=np.uint8)).save(tmp_path/'p'/('val' if i>2 else '.')/f'{i}.png')
    for valid in (tmp_path/'p'/'val', Path('p/val'), Path('p/../p/val')):
        dls = sr_dataloaders(Path('p'), valid=valid, size=8, bs=1, crops=1, device='cpu')
        assert [f.name for f in dls.train.items]==['0.png','1.png','2.png'] and [f.name for f in dls.valid.items]==['3.png']

HELP = 1
def helped(x): return x*0+HELP
def by_a_helper(x): return helped(bicubic_down(x, 2))

def test_what_a_function_calls_tells_it_from_others(monkeypatch):
    "A helper or a number that a person changed must not bring the pixels of before."
    was = ReadImage(TensorLR, by_a_helper).how
    assert ReadImage(TensorLR, by_a_helper).how==was
    monkeypatch.setitem(globals(), 'HELP', 2)
    one = ReadImage(TensorLR, by_a_helper).how
    monkeypatch.setitem(globals(), 'helped', lambda x: x)
    assert len({was, one, ReadImage(TensorLR, by_a_helper).how})==3

def test_a_degrade_of_ones_own_is_told_by_what_it_does():
    from sr_fastai.degrade import Bicubic, Degrade
    class A(Degrade):
        def __call__(self, x, seed): return super().__call__(x, seed)*0
    class B(Degrade):
        def __call__(self, x, seed): return super().__call__(x, seed)*0+200
    hows = {ReadImage(TensorLR, o(Bicubic(2))).how.replace('A(','B(') for o in (A,B)}
    assert len(hows)==2

def test_predictions_of_training_pairs_come_in_order(div2k, opts):
    from sr_fastai.learner import gan_learner
    from sr_fastai.models import Discriminator, Generator
    dls = div2k_dataloaders(div2k, **{**opts, 'crops':1, 'bs':2, 'flips':False})
    learn = gan_learner(dls, Generator(2, width=4, depth=0), Discriminator(width=4, depth=1, hidden=8))
    with learn.no_bar(), learn.no_logging(): _,ys = learn.get_preds(ds_idx=0)
    hrs = [torch.from_numpy(dls.train.whole(i)[1].copy())/255 for i in range(4)]
    def within(y, hr): return any(torch.equal(y, w) for w in hr.unfold(1, 24, 2).unfold(2, 24, 2).flatten(1, 2).movedim(1, 0))
    assert [next(i for i,hr in enumerate(hrs) if within(torch.Tensor(y), hr)) for y in ys]==[0,1,2,3]

def test_touched_files_are_hashed_once(tmp_path, monkeypatch):
    f = tmp_path/'a.png'
    save(lr_image(0), f)
    PixelCache(tmp_path/'c').add({'k':(f,read_rgb)})
    os.utime(f, (1,1))
    hashed,real = [],C.sha256
    monkeypatch.setattr(C, 'sha256', lambda p: hashed.append(p) or real(p))
    for _ in range(3):
        c = PixelCache(tmp_path/'c')
        assert c.add({'k':(f,read_rgb)})==[] and (c['k'].transpose(1,2,0)==lr_image(0)).all()
    assert len(hashed)==1

def test_a_number_of_more_than_four_digits():
    assert div2k_hr(Path('d/DIV2K_train_LR_bicubic/X2/10000x2.png'))==Path('d/DIV2K_train_HR/10000.png')

@pytest.mark.parametrize('share', [0,1.,-1])
def test_a_share_for_validation_that_makes_no_sense(div2k, opts, share):
    with pytest.raises(ValueError, match='valid_pct must be'): sr_dataloaders(div2k/'DIV2K_train_HR', valid_pct=share, **opts)
