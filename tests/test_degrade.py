"Degradations against references that are not ours, and as properties."
import json
import numpy as np, pytest
from PIL import Image
from hypothesis import given, settings, strategies as st
from scipy import ndimage
from sr_fastai import degrade as G
from sr_fastai.degrade import *

def noise(h, w, seed=0): return np.random.RandomState(seed).randint(0, 256, (h,w,3)).astype(np.uint8)

@given(st.integers(1,30), st.integers(1,30), st.integers(0,50))
@settings(deadline=None, max_examples=30)
def test_filter_is_scipys(h, w, seed):
    "Correlation with mirrored edges, wherever the kernel's centre is; images smaller than the kernel too."
    rng = np.random.RandomState(seed)
    k = rng.rand(rng.randint(1,8), rng.randint(1,8))
    top,left = rng.randint(k.shape[0]),rng.randint(k.shape[1])
    x = noise(h, w, seed)
    origin = [c-n//2 for c,n in zip((top,left), k.shape)]
    want = np.stack([ndimage.correlate(x[...,c].astype(float), k, mode='reflect', origin=origin) for c in range(3)], -1)
    np.testing.assert_allclose(G._filter(x, k, top, left), want, atol=1e-3)

def test_isotropic_gaussian_is_scipys():
    x = noise(40, 50)
    want = np.stack([ndimage.gaussian_filter(x[...,c].astype(float), 1.2, radius=10) for c in range(3)], -1)
    np.testing.assert_allclose(G._filter(x, *GaussianBlur.kernel(1.2, 1.2, 33., 21)), want, atol=.05)

@pytest.mark.parametrize('angle,axis', [(0,1),(90,0)])
def test_gaussian_turns(angle, axis):
    "Long along its angle: a point is spread over columns at 0 degrees, over rows at 90."
    x = np.zeros((41,41,3)); x[20,20] = 255
    y = G._filter(x, *GaussianBlur.kernel(4, .6, angle, 11))[...,0]
    var = [(y.sum(1-a)*(np.arange(41)-20)**2).sum()/y.sum() for a in (0,1)]
    assert var[axis]>8*var[1-axis]

@pytest.mark.parametrize('dx,dy', [(2,0),(0,-3),(1,1)])
def test_shift_by_whole_pixels(dx, dy):
    x = noise(20, 24)
    np.testing.assert_allclose(G._filter(x, *Shift.kernel(dx, dy))[4:-4,4:-4], np.roll(x, (dy,dx), (0,1))[4:-4,4:-4], atol=1e-3)

def test_motion_of_no_length_is_nothing():
    x = noise(20, 24)
    np.testing.assert_allclose(G._filter(x, *MotionBlur.kernel(0, 70)), x, atol=1e-3)

def test_motion_along_a_line():
    x = np.zeros((31,31,3)); x[15,15] = 255
    y = G._filter(x, *MotionBlur.kernel(8, 0))[...,0]
    assert y[15].sum()==pytest.approx(255) and (y[15]>1).sum() in (8,9) and y[15,15]==pytest.approx(255/8, rel=.1)
    up = G._filter(x, *MotionBlur.kernel(8, 90))[...,0]
    np.testing.assert_allclose(up, y.T, atol=1e-3)

@pytest.mark.parametrize('scale', [1,2,3,4])
def test_decimate_keeps_the_centre(scale):
    "A ramp of positions: each LR pixel has the mean position of the HR pixels that it stands for."
    x = np.repeat(np.repeat(np.arange(24.)[None,:,None], 24, 0), 3, 2)
    np.testing.assert_allclose(G._filter(x, *Decimate.kernel(scale), scale)[0,:,0], np.arange(24).reshape(-1,scale).mean(1))

@pytest.mark.parametrize('scale', [2,3,4])
def test_one_kernel_is_the_filters_one_after_the_other(scale):
    "But for the edge, which is mirrored once instead of after each."
    x = noise(48, 60)
    ks = Shift.kernel(1.3, -.4),MotionBlur.kernel(5, 20),GaussianBlur.kernel(1, 2, 40, 5),Decimate.kernel(scale)
    one,y = None,x
    for k in ks: one = G._compose(one, k)
    for k in ks[:-1]: y = G._filter(y, *k)
    y = G._filter(y, *ks[-1], scale)
    np.testing.assert_allclose(G._filter(x, *one, scale)[5:-5,5:-5], y[5:-5,5:-5], atol=1e-3)

ranges = st.one_of(st.floats(.5,5), st.tuples(st.floats(.5,2), st.floats(2,5)))
@given(ranges, ranges, st.integers(0,2**33), st.sampled_from([None,3]), st.sampled_from([2,3,4]))
@settings(deadline=None, max_examples=25)
def test_any_list_is_made_again_from_its_record(a, b, seed, same, scale):
    d = Degrade(Shift(a, b), GaussianBlur(a, b, size=5), MotionBlur(a), Decimate(scale), GaussianNoise(a), PoissonNoise((50,500)), Jpeg((30,95)), same=same)
    hr = noise(24, 36)
    lr = d(hr, seed)
    assert lr.shape==(24//scale,36//scale,3) and lr.dtype==np.uint8 and d.scale==scale
    np.testing.assert_array_equal(redo(hr, json.loads(json.dumps(d.draw(seed)))), lr)

def test_draws_stay_in_their_ranges_and_fill_them():
    d = Degrade(GaussianBlur((1,2), (3,4)), PoissonNoise((10,1000)), Jpeg((30,40)))
    rs = [d.draw(i) for i in range(300)]
    for i,k,lo,hi in ((0,'sigma1',1,2), (0,'sigma2',3,4), (0,'angle',0,180), (1,'photons',10,1000), (2,'quality',30,40)):
        v = np.array([r[i][k] for r in rs])
        assert lo<=v.min() and v.max()<=hi and v.max()-v.min()>.9*(hi-lo)
    assert 60<np.median([r[1]['photons'] for r in rs])<170 # the middle of a logarithmic scale
    assert len({r[1]['seed'] for r in rs})==300

def test_shared_settings_with_noise_of_each_images_own():
    d = mild()
    a,b = Degrade(*d.ops, same=1).draw(1),Degrade(*d.ops, same=1).draw(2)
    assert a[:3]==b[:3] and a[3]['photons']==b[3]['photons'] and a[3]['seed']!=b[3]['seed']

def test_the_numbers_of_a_record_do_not_change():
    "A published record has to stay what it is: the draw of seed 7, and the pixels that it gives."
    import hashlib
    assert wild().draw(7)[1]=={'step':'MotionBlur', 'length':7.014547703054296, 'angle':130.22373200956943}
    assert seed_of('0001.png')==seed_of('0001.png') and seed_of('0001.png')!=seed_of('0001.png', 1)!=seed_of('0002.png', 1)
    i,j,c = np.ogrid[:64,:64,:3]
    pic = ((i*i*(c+1) + 3*j*j + i*j*7)//16 % 256).astype(np.uint8)
    assert hashlib.sha256(np.ascontiguousarray(wild()(pic, 7))).hexdigest()[:16]=='a4b3f4af6dac29e6'

def test_grey_and_float_noise_are_clipped():
    x = np.zeros((16,16,1), np.uint8)
    y = Degrade(GaussianNoise(30), Jpeg(50))(x)
    assert y.shape==(16,16,1) and y.dtype==np.uint8

def test_bad_hr():
    with pytest.raises(ValueError, match='must be .H, W, C. uint8'): mild()(np.zeros((8,8,3)))

def test_a_folder_is_read_as_training_reads_it(tmp_path):
    "Upright, and 16 bits as 8."
    deep,exif = np.full((16,24), 32768, np.uint16),Image.Exif()
    exif[274] = 6
    (tmp_path/'HR').mkdir()
    Image.fromarray(deep).save(tmp_path/'HR'/'a.png', exif=exif)
    degrade_folder(tmp_path/'HR', tmp_path/'lr', bicubic(2), 'x2')
    with Image.open(tmp_path/'lr'/'ax2.png') as im: assert im.size==(8,12) and abs(np.asarray(im).astype(int)-128).max()<=1

def test_a_folder_that_makes_no_sense(tmp_path):
    with pytest.raises(FileNotFoundError, match='no .png files'): degrade_folder(tmp_path/'typo', tmp_path/'lr', bicubic(2), 'x2')
    Image.fromarray(noise(8, 8)).save(tmp_path/'a.png')
    with pytest.raises(ValueError, match='one name'): degrade_folder(tmp_path, tmp_path/'lr', bicubic(2), 'x2', variants=2)
    assert not (tmp_path/'lr').exists()
