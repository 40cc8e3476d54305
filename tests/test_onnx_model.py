"ONNX files: out and in, and what is refused."
import os, random, subprocess, sys
import numpy as np, pytest, torch
from sr_fastai.engine import upscale
from sr_fastai.models import Generator
from sr_fastai.onnx_model import *
from sr_fastai.weights import WeightsError, save_weights

onnx,ort = pytest.importorskip('onnx'),pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

@pytest.fixture(scope='module')
def net():
    torch.manual_seed(42)
    g = Generator(width=6, depth=2, slope=.1).eval()
    for p in g.parameters(): torch.nn.init.normal_(p, std=.1)
    return g

def test_a_symmetry_is_known_of_a_file_too(tmp_path):
    "So that `ensemble` asks for no answers that are alike; one that training has lost is not claimed."
    from sr_fastai.engine import _different
    g = Generator(width=8, depth=1, symmetry='p4m').eval()
    assert len([*_different(load_onnx(export_onnx(g, tmp_path/'a.onnx', card={})))])==1
    with torch.no_grad(): g.first.weight[0,0,0,0] += 1
    assert len([*_different(load_onnx(export_onnx(g, tmp_path/'b.onnx', card={})))])==8

@pytest.fixture(scope='module')
def good(net, tmp_path_factory):
    net.train()
    p = export_onnx(net, tmp_path_factory.mktemp('o')/'good.onnx', card=dict(licence='CC0-1.0'))
    assert net.training and all(o.requires_grad for o in net.parameters())
    net.eval()
    return p

def noise(*shape): return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)

def changed(good, path, f):
    "The file after `f` has had its way with its content."
    m = onnx.load(good)
    f(m)
    path.write_bytes(m.SerializeToString())
    return path

def refused(path, says):
    with pytest.raises(WeightsError, match=says) as e: load_onnx(path)(torch.rand(1,3,8,8))
    assert '\n' not in str(e.value) and len(str(e.value))<400 and str(path) in str(e.value)

# --- engine

def test_engine_runs_it_as_it_runs_the_network(net, good):
    for shape in ((30,41,3),(17,9),(20,20,4)):
        a = noise(*shape)
        y,want = upscale(a, model=good),upscale(a, model=net, precision='fp32')
        assert np.abs(y.astype(int)-want).max()<=1 and (y!=want).mean()<1e-3
    a = noise(40, 50, 3)
    whole = upscale(a, model=str(good), tile=None)
    for kw in (dict(tile=12), dict(tile=12, batch=4)):
        assert np.abs(upscale(a, model=str(good), **kw).astype(int)-whole).max()<=1
    assert upscale(a, 4, good).shape==(160,200,3) and upscale(a, model=load_onnx(good), ensemble=True).shape==(80,100,3)

def test_it_runs_where_this_runtime_can(monkeypatch):
    import onnxruntime
    gpu = torch.device('cuda', 1)
    for has,want in ((['CPUExecutionProvider'],'cpu'), (['CUDAExecutionProvider','CPUExecutionProvider'],'cuda')):
        monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: has)
        assert onnx_device(gpu).type==want and onnx_device(torch.device('cpu')).type=='cpu'

def test_a_file_that_changes_is_read_again(good, tmp_path):
    a,p = noise(9, 9, 3),tmp_path/'m.onnx'
    p.write_bytes(good.read_bytes())
    y = upscale(a, model=p)
    def darker(m): next(t for t in m.graph.initializer if t.name=='first.bias').raw_data = np.full(6, -9, np.float32).tobytes()
    changed(good, p, darker)
    os.utime(p, (1,1))
    assert (upscale(a, model=p)!=y).any()

def test_what_a_file_cannot_do_is_said(good):
    a = noise(9, 9, 3)
    with pytest.raises(ValueError, match='precision'): upscale(a, model=good, precision='bf16')
    with pytest.raises(ValueError, match='strength'): upscale(a, model=good, strength=.5)
    with pytest.raises(WeightsError, match='no support for'): load_onnx(good, 'xpu')
    with pytest.raises(FileNotFoundError, match='no such ONNX'): upscale(a, model='none.onnx')

# --- export

def test_half_from_a_weights_file(net, tmp_path):
    p = export_onnx(save_weights(net, tmp_path/'a.safetensors', dict(seed=7)), tmp_path/'h.onnx', half=True)
    m,a = load_onnx(p),noise(40, 40, 3)
    assert m.card==dict(seed=7) and m.config==net.config and m.pad==net.pad
    assert np.abs(upscale(a, model=p).astype(int)-upscale(a, model=net, precision='fp32')).max()<=1
    weights = [t.data_type for t in onnx.load(p).graph.initializer if len(t.dims)==4]
    assert weights and set(weights)=={onnx.TensorProto.FLOAT16}
    assert {o.dtype for o in net.parameters()}=={torch.float32}

def test_files_are_valid_and_name_no_machine(good):
    m = onnx.load(good)
    onnx.checker.check_model(m, full_check=True)
    assert b'/site-packages' not in good.read_bytes() and b'.py' not in good.read_bytes()
    dims = [d.dim_param for d in m.graph.input[0].type.tensor_type.shape.dim]
    assert dims[0] and dims[2] and dims[3]

def test_a_network_has_its_own_scale_and_strength(net, tmp_path):
    for kw in (dict(scale=4), dict(strength=.3)):
        with pytest.raises(ValueError, match='a network has its own'): export_onnx(net, tmp_path/'a.onnx', **kw)

def test_folders_tell_files_apart(net, good, tmp_path):
    from sr_fastai.folders import Work
    other = export_onnx(type(net)(**net.config), tmp_path/'other.onnx')
    assert Work(model=load_onnx(good)).key()!=Work(model=load_onnx(other)).key()

def test_a_failed_export_leaves_nothing(net, tmp_path):
    with pytest.raises(TypeError): export_onnx(net, tmp_path/'a.onnx', card={'x':object()})
    with pytest.raises(WeightsError, match='end in .onnx'): export_onnx(net, tmp_path/'a.safetensors')
    assert not list(tmp_path.iterdir())

@pytest.mark.parametrize('missing', ['onnx','onnxruntime'])
def test_a_missing_package_is_said_with_what_to_install(good, missing):
    code = f'''
import sys; sys.modules[{missing!r}] = None
import numpy as np, sr_fastai
try: sr_fastai.upscale(np.zeros((4,4,3), np.uint8), model=sys.argv[1])
except ImportError as e: print(e)'''
    r = subprocess.run([sys.executable, '-c', code, str(good)], capture_output=True, text=True, check=True)
    assert 'pip install "sr_fastai[onnx]"' in r.stdout and missing in r.stdout and r.stdout.count('\n')==1

# --- hostile

def test_numbers_in_other_files_are_not_read(good, tmp_path):
    secret = tmp_path/'secret.bin'
    def outside(m):
        t = m.graph.initializer[0]
        secret.write_bytes(t.raw_data)
        t.ClearField('raw_data')
        t.data_location = onnx.TensorProto.EXTERNAL
        t.external_data.add(key='location', value=str(secret))
    refused(changed(good, tmp_path/'a.onnx', outside), 'in other files')
    def hidden(m): # in an attribute of a node
        n = m.graph.node.add(op_type='Constant', output=['secret'])
        t = n.attribute.add(name='value', type=onnx.AttributeProto.TENSOR).t
        t.data_type,t.data_location = 1,onnx.TensorProto.EXTERNAL
        t.external_data.add(key='location', value=str(secret))
    refused(changed(good, tmp_path/'b.onnx', hidden), 'in other files')

def meta(**kw):
    def f(m):
        for o in m.metadata_props:
            if o.key in kw: o.value = kw[o.key]
    return f

@pytest.mark.parametrize('f,says', [(lambda m: m.ClearField('metadata_props'), 'no sr_fastai generator'), (meta(version='2'), 'newest sr_fastai'), (meta(pad='x'), 'metadata lack'),
    (meta(card='{'), 'metadata lack'), (meta(pad='1000000000'), "can't be"), (meta(pad='-1'), "can't be"), (meta(scale='0'), "can't be"), (meta(scale='3'), 'it makes'),
    (lambda m: m.graph.ClearField('node'), 'refuses it'), (lambda m: setattr(m.graph.node[0], 'op_type', 'Nonsense'), 'refuses it'), (lambda m: setattr(m.graph.node[0], 'domain', 'evil'), 'refuses it'),
    (lambda m: m.graph.ClearField('initializer'), 'refuses it')])
def test_lies_are_refused(good, tmp_path, f, says): refused(changed(good, tmp_path/'m.onnx', f), says)

def test_what_is_no_onnx_is_refused(good, tmp_path):
    p,b = tmp_path/'x.onnx',good.read_bytes()
    for data,says in ((b'', 'no sr_fastai generator'), (b'PK\3\4', 'no ONNX'), (b[:len(b)//2], 'no ONNX'), (b'\0'*100, 'no ONNX')):
        p.write_bytes(data)
        refused(p, says)
    with pytest.raises(WeightsError, match='is a folder'): load_onnx(tmp_path)

def test_mutated_files_end_in_a_result_or_a_sentence(good, tmp_path, capfd):
    b,rnd,p,ends = good.read_bytes(),random.Random(42),tmp_path/'m.onnx',set()
    for _ in range(150):
        new = bytearray(b)
        for _ in range(rnd.randint(1, 4)): new[rnd.randrange(len(b))] = rnd.randrange(256)
        p.write_bytes(new)
        try: ends.add(load_onnx(p)(torch.rand(1,3,8,9)).shape)
        except WeightsError as e:
            ends.add('refused')
            assert '\n' not in str(e)
    assert ends=={'refused',(1,3,16,18)} and capfd.readouterr()==('','')
