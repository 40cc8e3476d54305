"What `sr_fastai.resample` must hold on any image, against references that are not ours."
import numpy as np, pytest
from hypothesis import example, given, settings, strategies as st
from PIL import Image
from sr_fastai import resample as R
from sr_fastai.resample import bicubic_down, bicubic_up, resize

def noise(h, w, c=3, dtype=np.uint8, seed=0):
    x = np.random.default_rng(seed).random((h,w,c) if c else (h,w))
    return x.astype(dtype) if np.dtype(dtype).kind=='f' else (x*np.iinfo(dtype).max).round().astype(dtype)

def plain(x, size, scales):
    "MATLAB's algorithm with nothing but whole float64 arrays, tap after tap."
    for ax in sorted((0,1), key=lambda a: scales[a]):
        idx,w = R._taps(x.shape[ax], size[ax], scales[ax])
        x = x.swapaxes(0,ax)
        out = sum(w[:,k].reshape(-1,*[1]*(x.ndim-1))*x[idx[:,k]].astype(np.float64) for k in range(idx.shape[1]))
        x = np.floor(out.clip(0,255)+.5).astype(np.uint8).swapaxes(0,ax)
    return x

@pytest.mark.parametrize('scale', [2,3,4,8])
def test_pillow_agrees_inside(scale):
    "Pillow's antialiased bicubic has the same kernel, 8-bit weights, the other axis first and another edge: a grey level apart inside."
    x = noise(24*scale, 20*scale)//2+64 # nothing clips in between
    ours,pil = bicubic_down(x, scale),np.array(Image.fromarray(x).resize((20,24), Image.Resampling.BICUBIC))
    d = np.abs(ours.astype(int)-pil)[3:-3,3:-3]
    assert d.max()<=1 and d.mean()<.3

@settings(deadline=None, max_examples=60)
@given(st.integers(1,40), st.integers(1,40), st.sampled_from([0,1,3,4]), st.sampled_from([2,3,4,8]), st.integers(0,99))
def test_fast_sums_are_the_plain_sums(h, w, c, s, seed):
    "float32 where it is exact, blocks of rows, contiguous copies: none of it may show."
    x = noise(h, w, c, seed=seed)
    size = (-(-h//s),-(-w//s))
    np.testing.assert_array_equal(bicubic_down(x, s), plain(x, size, (1/s,1/s)))
    np.testing.assert_array_equal(bicubic_up(x, s), plain(x, (h*s,w*s), (s,s)))

def test_extremes_stay_exact_in_float32():
    "Full contrast at every phase makes the largest sums that there are."
    x = np.zeros((64,64), np.uint8)
    for p in range(8):
        x[:] = 0; x[p::4] = 255; x[:,p::3] = 255
        for s in (2,4,8): np.testing.assert_array_equal(bicubic_down(x, s), plain(x, (64//s,64//s), (1/s,1/s)))

@pytest.mark.parametrize('block', [1, 1000, 2**24])
def test_blocks_do_not_matter(block):
    x = noise(50, 31)
    for n,s in ((25,1/2),(17,1/3),(100,2)): np.testing.assert_array_equal(R._resize_rows(x, n, s, block), R._resize_rows(x, n, s))

@settings(deadline=None, max_examples=40)
@given(st.integers(1,30), st.integers(1,30), st.integers(1,50), st.integers(1,50), st.sampled_from([np.uint8,np.uint16,np.float32,np.float64]))
@example(17, 15, 37, 10, np.uint8)
def test_resize_any(h, w, oh, ow, dtype):
    x = noise(h, w, 3, dtype)
    y = resize(x, (oh,ow))
    assert y.shape==(oh,ow,3) and y.dtype==dtype and y.flags.c_contiguous
    # flipping commutes with resizing, up to the order of a float sum: in whole numbers a tie may be rounded the other way
    def apart(size): return np.abs(resize(x[::-1,::-1], size).astype(float)-resize(x, size)[::-1,::-1].astype(float)).max()
    whole = x.dtype.kind=='u'
    for size in ((oh,w),(h,ow)): assert apart(size)<=(1 if whole else 1e-5)
    assert apart((oh,ow))<=(2 if whole else 1e-5) # the second axis makes at most 1.25 levels of one, and rounds

def test_smaller_axis_first():
    "MATLAB shrinks first; the rounding in between makes the order visible."
    x = noise(40, 40)
    np.testing.assert_array_equal(resize(x, (80,10)), plain(x, (80,10), (2,.25)))
    assert (resize(x, (80,10))!=np.stack([resize(resize(x[...,c], (80,40)), (80,10)) for c in range(3)], -1)).any()

def test_16_bit_is_finer_8_bit():
    x = noise(30, 30)
    y = bicubic_down(x.astype(np.uint16)*257, 2)/257
    assert np.abs(y-bicubic_down(x, 2)).max()<=1.1 # one rounding in between less

def test_input_is_not_touched_and_any_layout_is_taken():
    x = noise(24, 36); keep = x.copy()
    a = bicubic_down(np.asfortranarray(x), 2)
    np.testing.assert_array_equal(a, bicubic_down(x, 2))
    np.testing.assert_array_equal(x, keep)
    np.testing.assert_array_equal(bicubic_down(x[::2,::-1], 3), bicubic_down(x[::2,::-1].copy(), 3))

@pytest.mark.parametrize('bad,exc', [(1.5,ValueError),(-2,ValueError),(0,ValueError)])
def test_bad_scale(bad, exc):
    for f in (bicubic_down, bicubic_up):
        with pytest.raises(exc, match='scale must be a whole number'): f(noise(4,4), bad)

@pytest.mark.parametrize('x', [np.zeros((4,4),bool), np.zeros((4,4),int), np.zeros((4,4),np.float16)])
def test_bad_type(x):
    with pytest.raises(TypeError, match='must be uint8, uint16, float32 or float64'): resize(x, (2,2))

@pytest.mark.parametrize('shape', [(4,), (0,4,3), (1,2,3,4)])
def test_bad_shape(shape):
    with pytest.raises(ValueError, match='must be'): bicubic_down(np.zeros(shape, np.uint8), 2)
