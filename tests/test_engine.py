"`upscale`: tiles that can't be seen, colours that don't move, any kind of input."
import io, os, subprocess, sys, threading
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from sr_fastai import engine
from sr_fastai.engine import *
from sr_fastai.imageio import *
from sr_fastai.models import Generator
from sr_fastai.weights import save_weights

def wild(**kw):
    "A network far from the identity, so that what is exact is so by construction."
    torch.manual_seed(42)
    g = Generator(**{**dict(width=6, depth=2), **kw}).eval()
    for p in g.parameters(): torch.nn.init.normal_(p, std=.3)
    return g

@pytest.fixture(scope='module')
def model(): return wild()

def noise(h, w, c=3, dtype=np.uint8):
    a = np.random.default_rng(h*100+w).integers(0, np.iinfo(dtype).max+1, (h,w,c), dtype=dtype)
    return a[...,0] if c==1 else a

# --- tiles

def same(a, b):
    "Equal, but for values that the processor's kernels, which differ by size, round the other way."
    d = np.abs(a.astype(int)-b)
    return d.max()<=1 and (d>0).sum()<=max(1, 1e-3*d.size)

@settings(max_examples=40, deadline=None)
@given(h=st.integers(1, 60), w=st.integers(1, 60), tile=st.integers(1, 64), scale=st.sampled_from([2,3,4]), precision=st.sampled_from(['fp32','bf16']), c=st.sampled_from([1,3,4]))
def test_tiled_equals_untiled(h, w, tile, scale, precision, c):
    g,a = wild(scale=scale, depth=1),noise(h, w, c)
    kw = dict(scale=scale, model=g, precision=precision)
    assert same(upscale(a, tile=max(tile, (max(h, w)+7)//8), **kw), upscale(a, tile=None, **kw))

@pytest.mark.parametrize('mk', [Generator, Generator.thesis])
@pytest.mark.parametrize('scale', [2,3,4])
def test_tiled_equals_untiled_for_each_head(mk, scale):
    g = mk(scale, width=6, depth=1).eval()
    a = noise(37, 53)
    for tile in (8,16,25): assert same(upscale(a, scale, g, tile=tile), upscale(a, scale, g, tile=None))

@pytest.mark.slow
@pytest.mark.parametrize('width,depth', [(48,8),(64,16)])
@pytest.mark.parametrize('precision', ['fp32','bf16'])
def test_tiled_equals_untiled_at_full_size(width, depth, precision):
    torch.manual_seed(42)
    g = Generator(width=width, depth=depth).eval()
    a = noise(300, 420)
    assert same(upscale(a, 2, g, tile=128, precision=precision), upscale(a, 2, g, tile=None, precision=precision))

def test_too_small_an_overlap_is_seen(model):
    "The test above can fail: one pixel less of overlap, and the tiles show."
    class Short(torch.nn.Module):
        scale,pad = 2,model.pad-3
        def forward(self, x): return model(x)
    s = Short()
    s.p = torch.nn.Parameter(torch.zeros(1))
    a = noise(40, 40)
    assert not same(upscale(a, 2, s, tile=16), upscale(a, 2, s, tile=None))

def test_ensemble_is_tiled_without_seams_too(model):
    a = noise(30, 41)
    assert same(upscale(a, model=model, ensemble=True, tile=10, precision='fp32'), upscale(a, model=model, ensemble=True, tile=None, precision='fp32'))

def test_ensemble_commutes_with_flips_and_turns(model):
    a = noise(20, 31).astype(np.float32)/255
    y = upscale(a, model=model, ensemble=True, precision='fp32')
    for t in (lambda o: o[::-1], lambda o: o[:,::-1], lambda o: o.swapaxes(0, 1)):
        assert np.abs(upscale(np.ascontiguousarray(t(a)), model=model, ensemble=True, precision='fp32')-t(y)).max()<1e-5

@pytest.mark.parametrize('batch', [2,5,64])
def test_batches_of_tiles_equal_single_ones(model, batch):
    for c in (1,3,4):
        a,sizes = noise(50, 61, c),[]
        class Seen(Generator):
            def subpixels(self, x): return sizes.append(len(x)) or super().subpixels(x)
        g = Seen(**model.config).eval()
        g.load_state_dict(model.state_dict())
        assert same(upscale(a, model=g, tile=12, batch=batch), upscale(a, model=model, tile=12, batch=1))
        assert max(sizes)>1 and max(sizes)<=batch*(1+(c==4))

def test_results_that_arrive_later_go_to_their_place(model, monkeypatch):
    "As on CUDA, where the next batch is started before the last one is fetched."
    fetched,real = [],engine.deque
    class Late(real):
        def __len__(self): return 0 if super().__len__()<3 else 1
        def popleft(self): return fetched.append(super().__len__()) or super().popleft()
    monkeypatch.setattr(engine, 'deque', Late)
    a = noise(50, 61)
    y = upscale(a, model=model, tile=12)
    monkeypatch.undo()
    assert fetched and min(fetched)==3 and (y==upscale(a, model=model, tile=12)).all()

@pytest.mark.cuda
def test_a_network_is_used_where_it_is_wanted():
    g,a = Generator(width=8, depth=1).eval(),noise(20, 30)
    want = upscale(a, model=g).astype(int)
    assert abs(upscale(a, model=g, device='cuda', precision='fp32')-want).max()<=1 and next(g.parameters()).device.type=='cpu'

@pytest.mark.cuda
@pytest.mark.parametrize('kw', [{}, dict(tile=64), dict(tile=64, batch=4)])
def test_cuda_equals_the_processor(kw):
    torch.manual_seed(42)
    g,a = Generator(width=16, depth=4).eval(),noise(300, 420)
    y,want = (upscale(a, model=g, device=d, precision='fp32', **kw).astype(int) for d in ('cuda','cpu'))
    assert abs(y-want).max()<=1 and (y!=want).mean()<1e-2

# --- memory

class Hungry(torch.nn.Module):
    "Runs out of memory for anything larger than `most` pixels."
    scale,pad = 2,0
    def __init__(self, most, error):
        super().__init__()
        self.most,self.error,self.sizes = most,error,[]
        self.p = torch.nn.Parameter(torch.zeros(1))
    def forward(self, x):
        self.sizes.append(x.shape[-2:])
        if x.shape[-1]*x.shape[-2]>self.most: raise self.error
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)

@pytest.mark.parametrize('error', [torch.OutOfMemoryError('CUDA out of memory'), MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")])
def test_out_of_memory_halves_the_tile(error):
    m,a,parts = Hungry(40*40, error),noise(450, 330),[]
    y = upscale(a, model=m, tile=128, progress=parts.append)
    assert (y==a.repeat(2, 0).repeat(2, 1)).all()
    assert parts==sorted(parts) and abs(parts[-1]-1)<1e-6 and len(parts)>80
    # it learns: few tiles were tried in vain
    assert sum(h*w>40*40 for h,w in m.sizes)<=2

def test_out_of_memory_halves_the_batch_first():
    class Batched(Hungry):
        def forward(self, x):
            if x.shape[-1]>8: self.sizes.append(len(x))
            if len(x)>3: raise self.error
            return x.repeat_interleave(2, -1).repeat_interleave(2, -2)
    m,a = Batched(0, MemoryError()),noise(60, 60)
    assert (upscale(a, model=m, tile=10, batch=16)==a.repeat(2, 0).repeat(2, 1)).all()
    assert [o for o in m.sizes if o>3]==[16,8,4] and 2 in m.sizes

def test_tiles_fit_the_memory_at_hand(model, monkeypatch):
    a,free = noise(300, 300),engine._free_memory(torch.device('cpu'))
    assert 2**20<free
    parts = []
    monkeypatch.setattr(engine, '_check_room', lambda *args: None)
    for memory in (free,2**27,0):
        monkeypatch.setattr(engine, '_free_memory', lambda device: memory)
        n = []
        upscale(a, model=model, progress=n.append)
        parts.append(len(n))
    assert parts[0]==1<parts[1]<parts[2]

def test_memory_within_a_container(monkeypatch):
    "The kernel tells of the machine; a container may have less."
    files = {'/proc/meminfo':'MemTotal: 9 kB\nMemAvailable:   1000 kB\n', '/sys/fs/cgroup/memory.max':'700000', '/sys/fs/cgroup/memory.current':'600000', '/sys/fs/cgroup/memory.stat':'anon 200000\ninactive_file 300000\nactive_file 100000\n'}
    monkeypatch.setattr(engine.Path, 'read_text', lambda p: files[p.as_posix()])
    cpu = torch.device('cpu')
    assert engine._free_memory(cpu)==500000 # cached files give way
    files['/sys/fs/cgroup/memory.max'] = 'max'
    assert engine._free_memory(cpu)==1024000

@pytest.mark.parametrize('error', [torch.OutOfMemoryError('CUDA out of memory'), RuntimeError("can't allocate memory")])
def test_out_of_memory_for_good_is_said(error, monkeypatch):
    with pytest.raises(MemoryError): upscale(noise(40, 40), model=Hungry(10, MemoryError()))
    with pytest.raises(MemoryError, match='not enough memory on cpu'): upscale(noise(40, 40), model=Hungry(10, error))
    def full(*args): raise error
    monkeypatch.setattr(engine, '_cached', full)
    with pytest.raises(MemoryError, match='not enough memory on cpu'): upscale(noise(40, 40), model='lite')

def test_other_errors_are_not_swallowed():
    with pytest.raises(RuntimeError, match='broken'): upscale(noise(40, 40), model=Hungry(10, RuntimeError('broken')))

# --- values

@pytest.mark.parametrize('mode', ['L','RGB','RGBA','LA','CMYK'])
def test_flat_pictures_keep_all_256_values(model, mode):
    c = dict(L=1, RGB=3, RGBA=4, LA=2, CMYK=4)[mode]
    for v in range(256):
        a = np.full((3,4,c), v, np.uint8)
        assert (upscale_picture(Picture(a, mode), 2, model).a==v).all()

@pytest.mark.parametrize('v', [0,1,256,32768,65534,65535])
def test_flat_16_bits(model, v): assert (upscale(np.full((6,6,3), v, np.uint16), model=model)==v).all()

@pytest.mark.parametrize('v', [0,.1,1/3,1])
def test_flat_floats(model, v): assert (upscale(np.full((6,6,3), v, np.float32), model=model)==np.float32(v)).all()

def test_flat_at_any_scale(model):
    a = np.full((9,7,3), 201, np.uint8)
    for s in (.5,1,1.7,3,4,5.3): assert (upscale(a, s, model)==201).all()

def test_a_flat_region_stays_flat_beside_detail(model):
    a = np.full((40,40,3), 255, np.uint8)
    a[:,20:] = noise(40, 20)
    y = upscale(a, model=model)
    assert (y[:,:2*(20-REACH)]==255).all() and (y[:,2*20:]!=255).any()

def test_grey_stays_neutral(model):
    g = noise(20, 20, 1)
    want = upscale(g, model=model)
    assert (upscale(g[...,None].repeat(3, -1), model=model)==want[...,None]).all()
    im = upscale(Image.fromarray(g), model=model)
    assert im.mode=='L' and (np.asarray(im)==want).all()

def test_hidden_colours_do_not_bleed(model):
    a = noise(40, 40, 4)
    a[:,:20,3],a[:,20:,3] = 0,255
    b = a.copy(); b[:,:20,:3] = 255-b[:,:20,:3]
    x,y = upscale(a, model=model),upscale(b, model=model)
    assert (x==y).all()
    # what is seen through the edge are visible colours
    a[:,20:,:3],a[:,:20,:3] = (200,100,50),(0,255,0)
    y = upscale(a, model=model)
    assert (y[y[...,3]>0][:,:3]==(200,100,50)).all()

def test_constant_alpha_is_kept_and_costs_nothing(model):
    a = noise(20, 20, 4); a[...,3] = 77
    y = upscale(a, model=model)
    assert (y[...,3]==77).all() and (y[...,:3]==upscale(np.ascontiguousarray(a[...,:3]), model=model)).all()

def test_depths_agree(model):
    "The same picture in 8 bits, 16 bits and floats."
    a = noise(20, 20)
    y = upscale(a, model=model, precision='fp32').astype(float)
    assert np.abs(upscale(a.astype(np.uint16)*257, model=model, precision='fp32')/257.-y).max()<=.51
    assert np.abs(upscale(a/255., model=model, precision='fp32')*255-y).max()<=.51

def test_bf16_is_near(model):
    g = Generator(width=16, depth=4).eval()
    a = noise(40, 40)
    d = np.abs(upscale(a, model=g, precision='bf16').astype(int)-upscale(a, model=g, precision='fp32'))
    assert d.max()<=3

# --- kinds

def test_same_kind_back(model, tmp_path):
    a = noise(10, 12)
    y = upscale(a, model=model)
    t = torch.from_numpy(a).movedim(-1, 0)
    for x in (t, t.float()/255, (t.float()/255).double(), (t.float()/255).half(), t.float().div(255).bfloat16()):
        r = upscale(x, model=model)
        assert (r.dtype,r.shape)==(x.dtype,(3,20,24))
    assert upscale(a/255., model=model).dtype==np.float64
    assert upscale((a/255).astype(np.float16), model=model).dtype==np.float16
    Image.fromarray(a).save(tmp_path/'a.png')
    data = (tmp_path/'a.png').read_bytes()
    for src in (tmp_path/'a.png', str(tmp_path/'a.png'), data, io.BytesIO(data), Image.open(tmp_path/'a.png')):
        r = upscale(src, model=model)
        assert isinstance(r, Image.Image) and (np.asarray(r)==y).all()

def test_the_input_is_left_alone(model):
    a = noise(10, 12, 4); b = a.copy()
    upscale(a, model=model)
    assert (a==b).all()
    x = torch.rand(3,5,5, requires_grad=True)
    assert not upscale(x, model=model).requires_grad
    a.setflags(write=False)
    upscale(a, model=model, tile=None)

def test_the_model_is_left_as_it_was():
    g = wild().train()
    upscale(noise(6, 6), model=g)
    assert g.training and all(p.requires_grad for p in g.parameters()) and next(g.parameters()).dtype==torch.float32
    g.blocks.eval()
    upscale(noise(6, 6), model=g)
    assert g.training and not g.blocks.training

def test_threads_are_put_back(model):
    n = torch.get_num_threads()
    upscale(noise(6, 6), model=model, threads=1)
    assert torch.get_num_threads()==n

def test_weights_file_is_read_again_when_it_changes(tmp_path):
    a,p = noise(8, 8),tmp_path/'m.safetensors'
    save_weights(Generator(width=4, depth=1), p)
    y = upscale(a, model=p)
    save_weights(wild(width=4, depth=1), p)
    os.utime(p, (1,1))
    assert (upscale(a, model=p)!=y).any()

@pytest.mark.parametrize('size', [(1,1),(2,1),(1,9)])
def test_tiny_pictures(model, size): assert upscale(noise(*size), model=model).shape==(size[0]*2,size[1]*2,3)

def test_cancelling_between_tiles(model):
    class Enough(Exception): pass
    seen = []
    def progress(part):
        seen.append(part)
        if part>.4: raise Enough
    with pytest.raises(Enough): upscale(noise(40, 40), model=model, tile=10, progress=progress)
    assert .4<seen[-1]<.6

# --- quality on demand

def test_consistent_gives_the_picture_back(model):
    y = np.kron(np.random.default_rng(1).integers(40, 210, (6,6,3), dtype=np.uint8), np.ones((6,6,1), np.uint8))
    for size in ((72,72),(90,101)):
        errors = [np.abs(engine.resize(upscale(y, size=size, model=model, consistent=c), (36,36)).astype(int)-y) for c in (False,True)]
        assert errors[1].mean()<.3<errors[0].mean() and errors[1].max()<=8 # a network 40 levels off

@pytest.mark.parametrize('size', [(200,160),(231,190),(101,90)])
def test_consistent_tiles_do_not_show(size):
    "It is made tile by tile, in place."
    a = noise(80, 100)
    z = engine.resize(a, size[::-1])
    kw = dict(colours=3, hides=False, device=torch.device('cpu'))
    whole,tiled = (engine._consistent(a, z.copy(), side=n, **kw) for n in (1000,32))
    assert same(tiled, whole) and (tiled!=z).any()

def test_consistent_needs_room(model):
    with pytest.raises(ValueError, match='at least as large'): upscale(noise(20, 20), .5, model, consistent=True)
    a = noise(20, 20)
    assert (upscale(a, 1, model, consistent=True)==a).all()

def test_consistent_of_flat_and_deep_pictures(model):
    for a in (np.full((20,20,3), 255, np.uint8), np.full((20,20,3), 12345, np.uint16), np.full((20,20,3), .7, np.float32)):
        assert (upscale(a, model=model, consistent=True)==a[0,0,0]).all()

@pytest.mark.parametrize('precision', ['bf16','fp16'])
@pytest.mark.parametrize('dtype,peak', [(np.uint16,65535),(np.float32,1)])
def test_consistent_is_as_fine_in_a_half_type(model, dtype, peak, precision):
    "65535 is beyond float16, and the steps of bfloat16 there are 256 levels."
    a = np.full((24,24,3), .3*peak, dtype)
    a[:,12:] = peak
    def off(p): return np.abs(engine.resize(upscale(a, model=model, consistent=True, precision=p), (24,24)).astype(float)-a).mean()
    assert off(precision)<1.1*off('fp32')

def test_consistent_is_not_true_to_hidden_colours(model):
    a = np.full((20,20,4), 200, np.uint8)
    a[:,:10] = 0,255,0,0
    y = upscale(a, model=model, consistent=True)
    assert (y[y[...,3]>200][:,:3]==200).all()

def test_strength(tmp_path):
    a,b = wild(width=4, depth=1),Generator(width=4, depth=1)
    p,x = save_weights(b, tmp_path/'g.safetensors', start=a),noise(9, 9)
    for s,m in ((0,a),(1,b)): assert (upscale(x, model=p, strength=s, device='cpu')==upscale(x, model=m)).all()
    with pytest.raises(ValueError, match='from 0 to 1'): upscale(x, model=p, strength=2)
    with pytest.raises(ValueError, match='one strength'): upscale(x, model=a, strength=.5)

# --- scales

def test_passes_by_shipped_scales(tmp_path, monkeypatch):
    "The fewest passes; with x2 and x4 weights, x4 is one."
    from sr_fastai import weights
    for s in (2,4): weights.register_weights(save_weights(wild(scale=s, width=4, depth=1), tmp_path/f'w{s}.safetensors', dict.fromkeys(weights.CARD_KEYS, {})), 'base', tmp_path/'shipped')
    monkeypatch.setattr(engine, 'registry', lambda: weights.registry(tmp_path/'shipped'))
    monkeypatch.setattr(engine, 'load_weights', lambda *args: weights.load_weights(*args, folder=tmp_path/'shipped'))
    engine._cached.cache_clear()
    try:
        for scale,want in ((1.5,[2]), (2,[2]), (3,[4]), (4,[4]), (8,[2,4]), (20,[2,4,4])):
            assert [m.scale for m in engine._models('auto', scale, 1., torch.device('cpu'), False)]==want
        a = noise(9, 11)
        assert (upscale(a, 4)==upscale(a, 4, tmp_path/'shipped'/'base_x4.safetensors')).all()
        assert upscale(a, 3).shape==(27,33,3) and upscale(a, size=(23,19)).shape==(19,23,3)
    finally: engine._cached.cache_clear()

def test_two_passes_are_one_after_the_other(model):
    a = noise(9, 11)
    assert (upscale(a, 4, model)==upscale(upscale(a, 2, model), 2, model)).all()
    assert (upscale(a, 3, model)==engine.resize(upscale(a, 4, model), (27,33))).all()

def test_a_few_pixels_more_take_no_second_pass(model):
    a = noise(40, 50)
    assert (upscale(a, size=(102,80), model=model)==engine.resize(upscale(a, model=model), (80,102))).all()

# --- odd arguments

class Same(torch.nn.Identity): scale,pad = 1,0

@pytest.mark.parametrize('kw,says', [(dict(scale=float('nan')),'scale must'), (dict(scale='2'),'scale must'), (dict(scale=65),'scale must'), (dict(size=7),'size must'), (dict(size=(10.5,10)),'size must'),
    (dict(size=(0,9)),'size must'), (dict(size=(10**6,9)),'at most 64 times'), (dict(tile=True),'tile must'), (dict(tile='big'),'tile must'), (dict(batch=0),'batch must'), (dict(batch=2.),'batch must'),
    (dict(threads=0),'threads must'), (dict(threads=-1),'threads must'), (dict(model=None),'model must'), (dict(model=torch.nn.Identity()),'has to say how many times'), (dict(model=Same()),'has to enlarge'), (dict(device='nonsense'),"can't be used"), (dict(model=''),'no weights are called'), (dict(model='nonsense', scale=.5),'no weights are called')])
def test_odd_arguments_are_refused_in_a_sentence(model, kw, says):
    with pytest.raises((ValueError,TypeError), match=says) as e: upscale(noise(10, 10), **(dict(model=model)|kw))
    assert '\n' not in str(e.value)

def test_numpy_numbers_are_numbers(model):
    a = noise(10, 12)
    assert upscale(a, np.float32(2), model, tile=np.int64(5)).shape==upscale(a, size=tuple(np.array([24,20])), model=model).shape==(20,24,3)

@pytest.mark.parametrize('mk', [lambda a: a[::-1,::-1], lambda a: np.asfortranarray(a), lambda a: a[::2,::2]])
def test_any_strides(model, mk):
    a = mk(noise(20, 24))
    assert (upscale(a, model=model)==upscale(a.copy(), model=model)).all()

def test_other_byte_orders(model):
    a = noise(8, 9, 3, np.uint16)
    y = upscale(a.astype('>u2'), model=model)
    assert (y==upscale(a, model=model)).all() and upscale((a/65535).astype('>f4'), model=model).shape==(16,18,3)

def test_an_empty_batch_is_refused(model):
    with pytest.raises(ImageError, match='no pictures'): upscale(torch.zeros(0,3,8,8), model=model)

def test_networks_in_half_types(model):
    import copy
    g,a = Generator(width=8, depth=1).eval(),noise(12, 12)
    want = upscale(a, model=g, precision='fp32').astype(int)
    for t in (torch.bfloat16,torch.float16): assert np.abs(upscale(a, model=copy.deepcopy(g).to(t), precision='fp32')-want).max()<=3

@pytest.mark.slow
@pytest.mark.skipif(sys.platform=='win32', reason='no resident set size')
@pytest.mark.parametrize('consistent', [False,True])
def test_memory_of_100_megapixels(tmp_path, consistent):
    "25 megapixels in, 100 out, by a network as wide as the widest that is shipped: within 1.5 GB, all of torch included."
    Image.fromarray(noise(100, 100)).resize((5000,5000)).save(tmp_path/'a.jpg')
    code = """
import resource, sys
from sr_fastai.engine import upscale_file
from sr_fastai.models import Generator
upscale_file(sys.argv[1], sys.argv[2], model=Generator(width=64, depth=1), consistent=sys.argv[3]=='True')
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024)"""
    r = subprocess.run([sys.executable, '-c', code, str(tmp_path/'a.jpg'), str(tmp_path/'b.png'), str(consistent)], capture_output=True, text=True, check=True)
    assert float(r.stdout)<1500

@pytest.mark.parametrize('kind,made', [('RGB',4*3), ('grey',4*(1+3)), ('RGBA',4*4*2)])
def test_no_room_for_the_result_is_told_before_the_work(kind, made, monkeypatch):
    "A process that uses more than there is gets killed, and nobody tells why. What fits is never refused."
    a = np.random.default_rng(0).integers(0, 256, (64,64,4 if kind=='RGBA' else 3), dtype=np.uint8)
    if kind=='grey': a[:] = a[...,:1]
    net,worked = Generator(2, width=4, depth=0),[]
    monkeypatch.setattr(engine, '_number', lambda path, key='': np.inf)
    monkeypatch.setattr(engine, '_free_memory', lambda device: made*64*64-1)
    with pytest.raises(MemoryError, match='128x128 pixels, made of 64x64, need .* smaller scale or size'): upscale(a, model=net, progress=worked.append)
    assert worked==[]
    monkeypatch.setattr(engine, '_free_memory', lambda device: made*64*64)
    assert upscale(a, model=net).shape[:2]==(128,128)

def test_result_is_never_the_callers_memory():
    "Where nothing changes size there is nothing to do, and still the result is one's own."
    for x in (torch.rand(3,8,8), noise(8, 8), noise(8, 8, 1)):
        assert not np.shares_memory(np.asarray(x), np.asarray(upscale(x, scale=1)))
    im = Image.fromarray(noise(8, 8))
    assert upscale(im, scale=1, consistent=True).size==(8,8)

def test_progress_ends_with_the_last_tile(model):
    "Cores overlap where they do not divide the picture."
    parts = []
    upscale(noise(51, 51), model=model, tile=10, progress=parts.append)
    assert parts.count(parts[-1])==1 and abs(parts[-1]-1)<1e-6

def test_memory_is_counted_in_the_own_thread(model):
    "Hooks on a model that threads share saw the layers of another one's picture."
    from sr_fastai.engine import _pixel_bytes
    want = _pixel_bytes(model, torch.device('cpu'))
    stop = threading.Event()
    def work():
        while not stop.is_set(): model(torch.zeros(1, 3, 64, 64))
    t = threading.Thread(target=work)
    t.start()
    try: got = {_pixel_bytes(model, torch.device('cpu')) for _ in range(200)}
    finally:
        stop.set()
        t.join()
    assert got=={want}

def test_batch_is_one_progress_and_keeps_its_class(model):
    class Mine(torch.Tensor): pass
    seen = []
    y = upscale(torch.rand(3,3,8,8).as_subclass(Mine), model=model, progress=seen.append)
    assert type(y) is Mine and y.shape==(3,3,16,16) and seen==sorted(seen) and seen[-1]==1 and seen.count(1)==1
    assert type(upscale(torch.nn.Parameter(torch.rand(3,8,8)), model=model)) is torch.Tensor

def test_auto_with_a_strength_is_photo():
    "Pictures that are not lossy get base, which knows no start: a folder of them failed one by one."
    a = noise(9, 11)
    assert (upscale(a, 2, strength=.5)==upscale(a, 2, 'photo', strength=.5)).all()
    assert (upscale(a, 2)==upscale(a, 2, 'base')).all()

# --- networks that are more than a generator

class Negative(Generator):
    def forward(self, x): return 1-super().forward(x)

def test_a_subclass_is_asked_itself(model):
    "Results in 8 bits have a shorter way, which knows the generator alone."
    own = Negative(**model.config).eval()
    own.load_state_dict(model.state_dict())
    for a in (noise(9, 11), noise(9, 11, dtype=np.uint16)):
        white = np.iinfo(a.dtype).max
        assert np.abs(upscale(a, 2, own, precision='fp32').astype(int)+upscale(a, 2, model, precision='fp32')-white).max()<=1

def test_a_compiled_network_is_asked_itself(model):
    calls = []
    def backend(graph, inputs):
        calls.append(graph)
        return graph
    a = noise(9, 11)
    assert same(upscale(a, 2, torch.compile(model, backend=backend), precision='fp32'), upscale(a, 2, model, precision='fp32')) and calls

@pytest.mark.parametrize('scale', [.4,.5,.75])
def test_hidden_colours_do_not_bleed_when_made_smaller(scale):
    a = np.full((16,16,4), 255, np.uint8)
    a[:8] = 0 # black, and clear
    b = upscale(a, scale)
    assert b[b[...,3]>0,:3].min()==255

def test_threads_are_as_before_whoever_ends_first():
    was = torch.get_num_threads()
    first,second = engine._threads(was+1),engine._threads(was+2)
    first.__enter__(); second.__enter__()
    assert torch.get_num_threads()==was+2
    first.__exit__(None, None, None)
    assert torch.get_num_threads()==was+2
    second.__exit__(None, None, None)
    assert torch.get_num_threads()==was

def test_a_shared_network_is_as_before_when_the_last_is_done(model):
    class Normed(torch.nn.Module):
        scale,pad = 2,0
        def __init__(self): super().__init__(); self.norm = torch.nn.BatchNorm2d(3)
        def forward(self, x): return self.norm(x).clamp(0, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    net = Normed().train()
    first,second = engine._evaluating([net]),engine._evaluating([net,net])
    first.__enter__(); second.__enter__()
    first.__exit__(None, None, None)
    assert not net.training and not net.norm.training
    second.__exit__(None, None, None)
    assert net.training and net.norm.training

def test_another_default_device(model):
    with torch.device('meta'): assert upscale(noise(9, 11), 2, model, device='cpu', consistent=True).shape==(18,22,3)

def test_a_file_that_cannot_be_written_costs_no_work(model, tmp_path, monkeypatch):
    Image.fromarray(noise(8, 8)).save(tmp_path/'a.png')
    said = []
    monkeypatch.setattr(os, 'access', lambda p, mode: False)
    with pytest.raises(PermissionError, match='nothing may be made in'): upscale_file(tmp_path/'a.png', tmp_path/'b.png', model=model, progress=said.append)
    assert not said

@pytest.mark.parametrize('size,want', [((30,None),(30,15)), ((None,30),(60,30)), ((5,None),(5,2)), ([41,None],(41,20)), ((1,None),(1,1))])
def test_one_side_alone_keeps_the_proportions(model, size, want):
    assert upscale(Image.fromarray(noise(10, 20)), size=size, model=model).size==want

@pytest.mark.parametrize('size', [(None,None),(0,None),(None,-1),(2.5,None),5,'1x2'])
def test_sizes_that_make_no_sense(model, size):
    with pytest.raises(ValueError, match='size must be'): upscale(noise(10, 20), size=size, model=model)
