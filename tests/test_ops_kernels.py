"The kernels in csrc without torch around them: the CUDA kernels' arithmetic run on the CPU, every access under the address sanitizer, and all of it compiled with warnings as errors."
import ctypes, os, shutil, subprocess
from pathlib import Path
import pytest, torch
from torch.nn import functional as F
from torch.utils import cpp_extension
from sr_fastai import ops

here,csrc = Path(__file__).parent,ops._csrc()
home = ops._cuda_home()
cxx = ops._cxx()
warn = ['-Wall', '-Wextra', '-Werror', '-Wno-psabi']
needs_cxx = pytest.mark.skipif(not cxx, reason='no C++ compiler')
needs_cuda = pytest.mark.skipif(not (cxx and home), reason='no CUDA toolkit')

def run(*cmd):
    res = subprocess.run([str(c) for c in cmd], capture_output=True, text=True)
    assert not res.returncode, f'{" ".join(map(str, cmd))}\n{res.stdout[-3000:]}{res.stderr[-3000:]}'

@pytest.fixture(scope='module')
def kernels(tmp_path_factory):
    "The CUDA kernels as functions for the CPU."
    so = tmp_path_factory.mktemp('kernels')/'kernels.so'
    run(cxx, '-std=c++17', '-O1', '-march=native', *warn, '-shared', '-fPIC', f'-I{csrc}', '-isystem', home/'include', here/'kernels.cpp', csrc/'cpu.cpp', '-o', so)
    return ctypes.CDLL(str(so))

types = {torch.float64:0, torch.float32:1, torch.float16:2, torch.bfloat16:3, torch.uint8:4}
tol = {torch.float32:dict(atol=2e-7, rtol=1e-6), torch.float64:dict(atol=1e-15, rtol=1e-14), torch.float16:dict(atol=2**-12, rtol=2**-11), torch.bfloat16:dict(atol=2**-9, rtol=2**-8)}

def interleaved(t): return t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous()
def side(t): return [interleaved(t), t.stride(0), t.stride(1), t.stride(2)]
def args(lr, hr, r): return (ctypes.c_int64*13)(hr.shape[0], hr.shape[1], lr.shape[2], lr.shape[3], r, *side(lr), *side(hr))
def ptr(t): return ctypes.c_void_p(t.data_ptr())

sizes = [(2,3,2,3,64), (2,1,3,5,7), (3,3,2,4,37), (4,3,2,3,33), (1,3,2,2,50), (5,2,1,2,19), (2,3,1,3,1200), (2,64,1,2,9), (2,3,70,40,8), (3,1,9,90,3), (8,6,1,2,5), (9,1,1,1,130)] # r, C, N, H, W

@needs_cuda
@pytest.mark.parametrize('how', ['contiguous','channels_last','misaligned'])
@pytest.mark.parametrize('dtype', list(tol))
def test_cuda_kernels_on_the_cpu(kernels, dtype, how):
    torch.manual_seed(0)
    for r,c,n,h,w in sizes:
        x = torch.randn(n, c*r*r, h, w).mul_(3).to(dtype)
        if how=='channels_last': x = x.to(memory_format=torch.channels_last)
        if how=='misaligned': x = torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)
        like = dict(memory_format=torch.channels_last) if interleaved(x) else {}
        want = torch.sigmoid(F.pixel_shuffle(x.double(), r))
        for out in {dtype, torch.float64 if dtype==torch.float64 else torch.float32}:
            y = torch.full(want.shape, 9., dtype=out).to(**like)
            kernels.forward(args(x, y, r), types[dtype], ptr(x), types[out], ptr(y))
            torch.testing.assert_close(y, want.to(out), **tol[out])
            g,gx = torch.randn(want.shape).to(out).to(**like),torch.full_like(x, 9.)
            kernels.backward(args(gx, y, r), types[out], ptr(g), ptr(y), types[dtype], ptr(gx))
            torch.testing.assert_close(gx, F.pixel_unshuffle(g.double()*y.double()*(1-y.double()), r).to(dtype), **tol[dtype])
        if dtype!=torch.float64:
            for hwc in (False,True):
                u = torch.full((n,h*r,w*r,c) if hwc else (n,c,h*r,w*r), 77, dtype=torch.uint8)
                v = u.permute(0,3,1,2) if hwc else u
                a = args(x, v, r)
                a[9] = hwc # also where strides leave it open
                kernels.forward(a, types[dtype], ptr(x), types[torch.uint8], ptr(v))
                assert torch.equal(v, ops._torch_uint8(x, r, False))

@needs_cuda
def test_every_access_is_in_bounds(tmp_path, monkeypatch):
    monkeypatch.setenv('ASAN_OPTIONS', 'detect_stack_use_after_return=0') # with it GCC 13 puts vectors where their alignment does not let them be
    exe = tmp_path/'kernels'
    run(cxx, '-std=c++17', '-O0', '-g1', '-march=native', '-fsanitize=address,undefined', '-fno-sanitize-recover=undefined', *warn, f'-I{csrc}', '-isystem', home/'include',
        here/'kernels.cpp', csrc/'cpu.cpp', '-o', exe)
    run(exe)

@needs_cxx
@pytest.mark.parametrize('arch', ['-march=x86-64-v3', '-march=x86-64'])
def test_cpu_kernels_compile_without_warnings(arch, tmp_path):
    if os.uname().machine!='x86_64': pytest.skip('for x86-64')
    run(cxx, '-std=c++17', '-O3', '-ffp-contract=fast', arch, *warn, '-c', csrc/'cpu.cpp', '-o', tmp_path/'o')

def nvcc(archs, out): run(home/'bin/nvcc', '-std=c++17', '-O3', '-Werror', 'all-warnings', f'-Xcompiler={",".join(warn)}', *(f'-gencode=arch=compute_{a},code=sm_{a}' for a in archs), '-c', csrc/'cuda.cu', '-o', out)

@needs_cuda
def test_cuda_kernels_compile_without_warnings(tmp_path): nvcc([90], tmp_path/'o')

@pytest.mark.slow
@needs_cuda
def test_cuda_kernels_compile_for_every_architecture(tmp_path):
    known = [int(a.removeprefix('compute_')) for a in subprocess.run([home/'bin/nvcc','--list-gpu-arch'], capture_output=True, text=True).stdout.split()]
    archs = [a for a in known if a>=75]
    assert {75,80,86,89,90} <= set(archs)
    for a in archs: nvcc([a], tmp_path/'o')

@needs_cuda
def test_binding_compiles_without_warnings():
    run(cxx, '-std=c++20', '-fsyntax-only', '-fopenmp', *warn, '-DSR_CUDA', *(a for p in [*cpp_extension.include_paths(), home/'include'] for a in ('-isystem',p)), csrc/'binding.cpp')

@pytest.mark.cuda
def test_compute_sanitizer():
    tool = shutil.which('compute-sanitizer') or home and shutil.which('compute-sanitizer', path=home/'bin')
    if not tool: pytest.skip('no compute-sanitizer')
    for check in ('memcheck','racecheck','initcheck','synccheck'): run(tool, '--tool', check, '--error-exitcode', '1', 'python', '-m', 'sr_fastai.ops', 'check', 'cuda')
