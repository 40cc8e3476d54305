"The operator against torch: values, gradients, layouts, and its behaviour as an operator. On CPU always, on CUDA where there is one."
import os, time
import pytest, torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional as F
from sr_fastai import ops

devices = ['cpu', pytest.param('cuda', marks=pytest.mark.cuda)]
close = {torch.float32:dict(atol=3e-7, rtol=2e-6), torch.float64:dict(atol=1e-15, rtol=1e-14), torch.bfloat16:dict(atol=2**-9, rtol=2**-8), torch.float16:dict(atol=2**-12, rtol=2**-11)}

@pytest.fixture(scope='module', params=devices)
def device(request):
    name,reason = ops.build(request.param, again=False)
    assert name=='native', reason
    return request.param

@pytest.fixture
def op(device): return torch.ops.sr_fastai

def reference(x, r): return torch.sigmoid(F.pixel_shuffle(x.double(), r)) if x.numel() else x.new_empty(ops._shape(x, r), dtype=torch.double)

def laid_out(x, how):
    "The values of `x` in other strides."
    n,c,h,w = x.shape
    if how=='channels_last': return x.to(memory_format=torch.channels_last)
    if how=='crop': return F.pad(x, (3,2,1,4))[:,:,1:1+h,3:3+w]
    if how=='crop of channels_last': return F.pad(x, (3,2,1,4)).to(memory_format=torch.channels_last)[:,:,1:1+h,3:3+w]
    if how=='slice of channels': return torch.cat([x,x], 1)[:,c:]
    if how=='slice of channels_last': return torch.cat([x,x], 1).to(memory_format=torch.channels_last)[:,c:]
    if how=='transposed': return x.transpose(2, 3).contiguous().transpose(2, 3)
    if how=='every second': return x.repeat_interleave(2, 3)[...,::2]
    if how=='flipped batch': return x.permute(1,0,2,3).contiguous().permute(1,0,2,3)
    if how=='misaligned': return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)
    return x

layouts = ['contiguous', 'channels_last', 'crop', 'crop of channels_last', 'slice of channels', 'slice of channels_last', 'transposed', 'every second', 'flipped batch', 'misaligned']
cases = given(dtype=st.sampled_from(list(close)), r=st.integers(1, 5), c=st.integers(0, 5), n=st.integers(0, 3), h=st.integers(0, 4), w=st.one_of(st.integers(0, 70), st.just(1200)),
              how=st.sampled_from(layouts), seed=st.integers(0, 99))

def logits(dtype, n, c, r, h, w, how, seed, device):
    return laid_out(torch.randn(n, c*r*r, h, w, generator=torch.Generator().manual_seed(seed)).mul_(4).to(dtype), how).to(device)

def check(x, r):
    y = ops.pixel_shuffle_sigmoid(x, r)
    torch.testing.assert_close(y, reference(x, r).to(x.dtype), **close[x.dtype])
    assert y.stride()==torch.empty(y.shape, device=x.device, memory_format=torch._prims_common.suggest_memory_format(x)).stride()
    if x.dtype in (torch.float16,torch.bfloat16): torch.testing.assert_close(ops.pixel_shuffle_sigmoid(x, r, torch.float32), reference(x, r).float(), **close[torch.float32])
    want = ops._torch_uint8(x, r, False)
    assert torch.equal(ops.pixel_shuffle_sigmoid_uint8(x, r, 'CHW'), want)
    assert torch.equal(ops.pixel_shuffle_sigmoid_uint8(x, r), want.permute(0,2,3,1))

@settings(max_examples=150, deadline=None)
@cases
def test_forward(device, dtype, r, c, n, h, w, how, seed): check(logits(dtype, n, c, r, h, w, how, seed, device), r)

@settings(max_examples=150, deadline=None)
@cases
def test_backward(device, dtype, r, c, n, h, w, how, seed):
    x = logits(dtype, n, c, r, h, w, how, seed, device).requires_grad_()
    for out in {dtype, torch.float64 if dtype==torch.float64 else torch.float32}:
        y = ops.pixel_shuffle_sigmoid(x, r, out)
        for g in (torch.randn_like(y), torch.randn_like(y).contiguous(), torch.ones((), device=device, dtype=out).expand_as(y)):
            got, = torch.autograd.grad(y, x, g, retain_graph=True)
            want = (g.double()*y.double()*(1-y.double())).detach()
            want = F.pixel_unshuffle(want, r) if x.numel() else torch.empty(x.shape, device=device)
            assert got.dtype==dtype
            torch.testing.assert_close(got, want.to(dtype), **(close[torch.float32] if dtype==torch.float32 else close[dtype]))

@pytest.mark.parametrize('r,c,h,w', [(2,64,3,20), (8,3,2,9), (16,2,2,17), (3,40,2,5), (20,1,2,3), (1,300,2,2)]) # features, and more than the CUDA kernel's tiles hold
def test_many_channels(device, r, c, h, w):
    for how in ('contiguous','channels_last'):
        x = logits(torch.float32, 2, c, r, h, w, how, 0, device).requires_grad_()
        check(x.detach(), r)
        got, = torch.autograd.grad(ops.pixel_shuffle_sigmoid(x, r).square().sum(), x)
        want, = torch.autograd.grad(torch.sigmoid(F.pixel_shuffle(x, r)).square().sum(), x)
        torch.testing.assert_close(got, want)

@pytest.mark.parametrize('dtype', list(close))
def test_extremes(device, dtype):
    inf,nan = float('inf'),float('nan')
    x = torch.tensor([inf, -inf, nan, 1e4, -1e4, 88, -87, 89, -89, 104, -104, 0., -0., 20, -20, 6e-8]).repeat(4).view(1,4,2,8).to(dtype).to(device)
    for how in ('contiguous','channels_last'):
        y = ops.pixel_shuffle_sigmoid(laid_out(x, how), 2)
        torch.testing.assert_close(y, reference(x, 2).to(dtype), equal_nan=True, atol=1e-37, rtol=2e-5 if dtype==torch.float32 else close[dtype]['rtol'])
        assert torch.equal(y.isnan(), F.pixel_shuffle(x, 2).isnan())
        u = ops.pixel_shuffle_sigmoid_uint8(laid_out(x, how), 2, 'CHW')
        assert torch.equal(u, (reference(x.float(), 2)*255).round().nan_to_num(0).to(torch.uint8))

def test_levels_at_every_step(device):
    k = torch.arange(255, dtype=torch.double)+.5
    step = (k/(255-k)).log().float()
    below = [step]
    for _ in range(20): below.append(below[-1].nextafter(torch.tensor(-99.)))
    above = [step]
    for _ in range(20): above.append(above[-1].nextafter(torch.tensor(99.)))
    x = torch.cat(below+above).view(1,1,-1,255).to(device)
    x = x[...,x[0,0,0]!=0] # beside 0 the floats are denser than any formula's precision; 0 itself is below
    assert torch.equal(ops.pixel_shuffle_sigmoid_uint8(x, 1, 'CHW'), ops._torch_uint8(x, 1, False))
    assert ops.pixel_shuffle_sigmoid_uint8(torch.zeros(1,1,1,40, device=device), 1).unique().tolist()==[128]

@pytest.mark.parametrize('r', [1,2,3])
def test_gradients(device, r):
    for how in ('contiguous','channels_last'):
        x = logits(torch.float64, 1, 2, r, 2, 3, how, 0, device).requires_grad_()
        f = lambda x: ops.pixel_shuffle_sigmoid(x, r)
        assert torch.autograd.gradcheck(f, x) and torch.autograd.gradgradcheck(f, x)

def test_gradient_penalty_in_half_precision(device):
    x = logits(torch.bfloat16, 1, 1, 2, 3, 3, 'contiguous', 0, device).requires_grad_()
    def second(y):
        g, = torch.autograd.grad(y.sum(), x, create_graph=True)
        return torch.autograd.grad(g.float().square().sum(), x)[0]
    torch.testing.assert_close(second(ops.pixel_shuffle_sigmoid(x, 2, torch.float32)), second(torch.sigmoid(F.pixel_shuffle(x.float(), 2))), atol=1e-3, rtol=2e-2)

def test_saves_only_the_result(device):
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = ops.pixel_shuffle_sigmoid(torch.randn(1,4,3,3, device=device, requires_grad=True), 2)
    assert len(saved)==1 and saved[0].data_ptr()==y.data_ptr()

def test_autocast_leaves_the_type(device):
    for enabled in (True,False):
        with torch.autocast(device, torch.bfloat16, enabled=enabled):
            for dtype in close: assert ops.pixel_shuffle_sigmoid(torch.randn(1,4,3,3, device=device, dtype=dtype), 2).dtype==dtype

@pytest.mark.parametrize('how,dtype,out', [('contiguous',torch.float32,None), ('channels_last',torch.bfloat16,None), ('crop',torch.float16,torch.float32), ('transposed',torch.float64,None)])
def test_opcheck(device, op, how, dtype, out):
    x = laid_out(torch.randn(2,12,4,5).to(dtype), how).to(device)
    torch.library.opcheck(op.pixel_shuffle_sigmoid, (x.clone().requires_grad_(),2,out))
    torch.library.opcheck(op.pixel_shuffle_sigmoid, (x,2,out))
    y = op.pixel_shuffle_sigmoid(x, 2, out)
    torch.library.opcheck(op.pixel_shuffle_sigmoid_backward, (torch.randn_like(y).requires_grad_(),y.requires_grad_(),2,dtype))
    for hwc in (False,True): torch.library.opcheck(op.pixel_shuffle_sigmoid_uint8, (x,2,hwc))

def test_compile_has_one_graph_with_the_operator(device):
    seen = []
    def spy(gm, _):
        seen.append([n.target for n in gm.graph.nodes if n.op=='call_function'])
        return gm
    f = torch.compile(lambda x: ops.pixel_shuffle_sigmoid(x+1, 2)*2, fullgraph=True, backend=spy)
    x = torch.randn(1,12,5,5, device=device)
    torch.testing.assert_close(f(x), 2*torch.sigmoid(F.pixel_shuffle(x+1, 2)))
    assert len(seen)==1 and any('sr_fastai' in str(t) for t in seen[0])

def test_compiled_training_step(device):
    conv = torch.nn.Conv2d(3, 12, 3, padding=1).to(device)
    f = torch.compile(lambda x: ops.pixel_shuffle_sigmoid(conv(x), 2).square().mean(), fullgraph=True, backend='aot_eager')
    x = torch.randn(2,3,6,6, device=device)
    f(x).backward()
    got,conv.weight.grad = conv.weight.grad,None
    torch.sigmoid(F.pixel_shuffle(conv(x), 2)).square().mean().backward()
    torch.testing.assert_close(got, conv.weight.grad)

def test_export_is_plain_torch_of_any_size(device):
    class M(torch.nn.Module):
        def forward(self, x): return ops.pixel_shuffle_sigmoid(x, 2)
    hw = dict(enumerate([None, None, torch.export.Dim('h', min=2, max=500), torch.export.Dim('w', min=2, max=500)]))
    ep = torch.export.export(M(), (torch.randn(1,12,8,9, device=device),), dynamic_shapes=({k:v for k,v in hw.items() if v},))
    assert {n.target.namespace for n in ep.graph.nodes if n.op=='call_function' and hasattr(n.target, 'namespace')}=={'aten'}
    x = torch.randn(1,12,20,3, device=device)
    torch.testing.assert_close(ep.module()(x), ops.pixel_shuffle_sigmoid(x, 2))

def test_onnx_is_depth_to_space_and_sigmoid(tmp_path):
    onnx,_ = pytest.importorskip('onnx'),pytest.importorskip('onnxscript')
    class M(torch.nn.Module):
        def forward(self, x): return ops.pixel_shuffle_sigmoid(x, 2)
    torch.onnx.export(M().eval(), (torch.randn(1,12,8,8),), tmp_path/'m.onnx', dynamo=True, verbose=False)
    assert [n.op_type for n in onnx.load(tmp_path/'m.onnx').graph.node]==['DepthToSpace','Sigmoid']

def raw(device):
    "The schema's operator itself, past the Python checks."
    return lambda x,r,dtype=None: torch.ops.sr_fastai.pixel_shuffle_sigmoid(x, r, dtype)
def compiled(device): return torch.compile(ops.pixel_shuffle_sigmoid, backend='eager', fullgraph=True, dynamic=False)
def fallback(device):
    def f(x, r, dtype=None):
        with pytest.MonkeyPatch.context() as m:
            m.setenv('SR_FASTAI_OPS', 'torch')
            return ops.pixel_shuffle_sigmoid(x, r, dtype)
    return f
bad = [(torch.rand(3,4,4), 2, None, r'must be of shape \(N, C\*r\*r, H, W\), not \[3, 4, 4\]'), (torch.rand(1,6,4,4), 2, None, r'divisible by upscale_factor\*\*2 = 4, not 6; the shape of x is \[1, 6, 4, 4\]'),
       (torch.rand(1,4,4,4), 0, None, r'at least 1, not 0; the shape of x is \[1, 4, 4, 4\]'), (torch.rand(1,4,4,4), -2, None, 'at least 1, not -2'),
       (torch.zeros(1,4,4,4, dtype=torch.int32), 2, None, r'must be float16, .*\[1, 4, 4, 4\]'), (torch.rand(1,4,4,4).double(), 2, torch.float32, r'or float32 if that is wider.*\[1, 4, 4, 4\]')]

@pytest.mark.parametrize('way', [lambda device: ops.pixel_shuffle_sigmoid, raw, compiled, fallback])
@pytest.mark.parametrize('x,r,dtype,msg', bad)
def test_bad_input_has_one_sentence(device, way, x, r, dtype, msg):
    with pytest.raises((ValueError,RuntimeError), match=msg): way(device)(x.to(device), r, dtype)

def test_mixed_devices(device, op):
    y = torch.rand(1,1,4,4, device=device)
    with pytest.raises(RuntimeError, match=r'grad is on .*, y on .*1, 1, 4, 4'): op.pixel_shuffle_sigmoid_backward(torch.rand(1,1,4,4, device='meta'), y, 2, torch.float32)
    with pytest.raises(RuntimeError, match=r'must be alike'): op.pixel_shuffle_sigmoid_backward(torch.rand(1,1,4,2, device=device), y, 2, torch.float32)

@pytest.mark.parametrize('r', [2., True, torch.tensor(2.), '2'])
def test_factor_of_another_type(r):
    with pytest.raises(ValueError, match='must be an integer'): ops.pixel_shuffle_sigmoid(torch.rand(1,4,4,4), r)

def test_subclasses_pass_through(device):
    class Image(torch.Tensor): pass
    x = torch.randn(1,4,3,3, device=device).as_subclass(Image)
    assert type(ops.pixel_shuffle_sigmoid(x, 2)) is Image

def test_two_threads_share_the_work():
    if torch.get_num_threads()<2 and os.cpu_count()<2: pytest.skip('one core')
    ops.build(again=False)
    x,before = torch.randn(4,48,256,256),torch.get_num_threads()
    def mine(threads): # this thread's own time
        torch.set_num_threads(threads)
        ops.pixel_shuffle_sigmoid(x, 4)
        times = []
        for _ in range(7):
            t = time.thread_time()
            ops.pixel_shuffle_sigmoid(x, 4)
            times.append(time.thread_time()-t)
        return min(times)
    try: assert mine(2) < .75*mine(1)
    finally: torch.set_num_threads(before)

@pytest.mark.slow
def test_more_than_2_to_the_31_values():
    x = torch.zeros(1,4,1,1, dtype=torch.bfloat16).expand(1,4,23171,23171).contiguous()
    x[0,3,-1,-1] = 3
    y = ops.pixel_shuffle_sigmoid(x, 2)
    assert y.numel()>2**31 and y[0,0,-1,-1]==torch.tensor(3.).bfloat16().sigmoid() and (y[0,0,-2:,-2:]==.5).sum()==3 and y[0,0,0,0]==.5

@pytest.mark.cuda
def test_more_than_2_to_the_31_values_cuda():
    for how in ('contiguous','channels_last'):
        x = laid_out(torch.zeros(1,4,23171,23171, dtype=torch.bfloat16, device='cuda'), how)
        x[0,3,-1,-1] = 3
        y = ops.pixel_shuffle_sigmoid(x, 2)
        assert y[0,0,-1,-1]==torch.tensor(3.).bfloat16().sigmoid() and (y==.5).sum()==y.numel()-1

@pytest.mark.cuda
def test_current_stream_and_device():
    x,s = torch.randn(8,48,256,256, device='cuda'),torch.cuda.Stream()
    want = torch.sigmoid(F.pixel_shuffle(x, 4))
    torch.cuda.synchronize()
    with torch.cuda.stream(s):
        torch.cuda._sleep(50_000_000)
        x2 = x.clone()
        y = ops.pixel_shuffle_sigmoid(x2, 4)
    s.synchronize()
    torch.testing.assert_close(y, want)
    if torch.cuda.device_count()>1:
        y = ops.pixel_shuffle_sigmoid(x.to('cuda:1'), 4)
        assert y.device.index==1
        torch.testing.assert_close(y.to('cuda:0'), want)
