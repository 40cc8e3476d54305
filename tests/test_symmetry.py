"A generator with a symmetry: turned pictures give the turned result, and go on to after training, in files and in the engine."
import warnings
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional as F
from sr_fastai import upscale
from sr_fastai.accumulate import GANAccumulation
from sr_fastai.learner import gan_learner
from sr_fastai.models import Discriminator, Generator
from sr_fastai.onnx_model import export_onnx
from sr_fastai.optim import fused_adam, muon
from sr_fastai.steps import GANSymmetry
from sr_fastai.symmetry import GROUPS, PLAIN, Symmetry, moved, moved_channels, orbits
from sr_fastai.train import TrainConfig, train
from sr_fastai.weights import load_weights, read_card, save_weights
from test_learner import tiny_dls

groups = pytest.mark.parametrize('name', GROUPS)

def asymmetry(net, name):
    "How far the answers to a moved picture are from the moved answer, at most."
    x = torch.rand(1,3,9,7)
    with torch.no_grad(): return max((net(moved(x, m))-moved(net(x), m)).abs().max().item() for m in GROUPS[name])

@given(st.sampled_from([*GROUPS]), st.sampled_from([(None,True),(None,False),(True,False),(False,False),(False,True)]), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))
@settings(deadline=None, max_examples=60)
def test_orbits_are_those_of_the_group(name, plain, n_in, n_out, r):
    "Each number is in one orbit, each orbit has as many places as the group has members or a divisor of it, and moving changes no place's orbit."
    group,(plain_in,plain_out) = GROUPS[name],plain
    bias = plain_in is None
    n_out *= r*r*(1 if plain_out else len(group))
    shape = torch.Size((n_out,)) if bias else torch.Size((n_out,n_in*(1 if plain_in else len(group)),3,3))
    places,orbit = orbits(shape, group, bool(plain_in), plain_out, r)
    assert places.shape==(len(places),len(group)) and orbit.shape==(shape.numel(),)
    assert (orbit[places]==torch.arange(len(places))[:,None]).all() and sorted(set(places.flatten().tolist()))==[*range(shape.numel())]
    sizes = orbit.bincount()
    assert (len(group)%sizes==0).all()
    if not bias and not (plain_in and plain_out): assert (sizes==len(group)).all()

@groups
@pytest.mark.parametrize('conv', [dict(r=1), dict(r=3), dict(r=2, plain_out=True), dict(plain_in=True)], ids=str)
def test_a_shared_convolution_is_equivariant_by_torchs_own(name, conv):
    "The fields of a moved picture's features are the moved fields, whatever else the layer does."
    group,r = GROUPS[name],conv.get('r', 1)
    n_in,n_out = (3 if conv.get('plain_in') else 2*len(group)),(3 if conv.get('plain_out') else 2*len(group))*r*r
    w = torch.randn(n_out, n_in, 3, 3, dtype=torch.float64)
    places,orbit = orbits(w.shape, group, **conv)
    w = w.flatten()[places].mean(1)[orbit].view_as(w)
    x = torch.randn(1, n_in, 6, 5, dtype=torch.float64)
    of_in,of_out = (PLAIN if conv.get(o) else group for o in ('plain_in','plain_out'))
    for m in group:
        a = F.conv2d(moved(moved_channels(x, 1, m, of_in), m), w, padding=1)
        b = moved(moved_channels(F.conv2d(x, w, padding=1), 1, m, of_out, r), m)
        assert (a-b).abs().max()<1e-12

def learner(path, name, **kwargs):
    torch.manual_seed(0)
    return gan_learner(tiny_dls(), Generator(width=16, depth=1, symmetry=name), Discriminator(width=4, depth=2, pool=2, hidden=8), lr=1e-2, path=path, **kwargs)

@groups
@pytest.mark.parametrize('how', ['adam','muon','turns','joint','accumulated'])
def test_training_keeps_it(tmp_path, name, how):
    learn = learner(tmp_path, name, ema=.9, joint=how=='joint', cbs=GANAccumulation(2) if how=='accumulated' else None)
    net = learn.model.generator
    was = {k:v.clone() for k,v in net.state_dict().items()}
    with learn.no_bar(), learn.no_logging(), warnings.catch_warnings():
        warnings.filterwarnings('error', '.*shadowing an attribute .symmetry') # of the generator, which a plain learner hands on
        if how in ('adam','muon'): learn.pretrain(3, 1e-2, opt_func=dict(adam=fused_adam, muon=muon)[how])
        else: learn.fit(3)
    assert asymmetry(net, name)<1e-5
    assert all((v-was[k]).abs().max()>1e-4 for k,v in net.state_dict().items()), 'nothing was learnt'
    learn.export_weights(tmp_path/'w.safetensors')
    again = load_weights(tmp_path/'w.safetensors')
    assert again.symmetry==name and asymmetry(again, name)<1e-5
    learn.export()

@pytest.mark.parametrize('name', [None,'p4m'])
def test_without_shared_gradients_there_is_none(tmp_path, name):
    "What the last test would see; and a generator without a symmetry learns as it did."
    learn = learner(tmp_path, name)
    if name: learn.remove_cb(GANSymmetry)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert asymmetry(learn.model.generator, 'p4m')>1e-4

def test_weights_without_gradients_stay_without():
    net = Generator(width=8, depth=2, symmetry='p4')
    net.first.requires_grad_(False)
    same = Symmetry(net)
    same.share() # nothing there yet
    net(torch.rand(1,3,5,5)).square().mean().backward()
    was = net.joined.weight.grad.clone()
    same.share()
    assert net.first.weight.grad is None and not torch.equal(net.joined.weight.grad, was)
    torch.testing.assert_close(net.joined.weight.grad.sum(), was.sum(), rtol=1e-4, atol=1e-6)

def test_from_config_to_weights_and_on(tmp_path):
    "What is trained from such weights keeps their symmetry without being told; another scale's too."
    tiny = dict(data='sample', size=16, crops=1, bs=4, critic_width=4, critic_depth=2, device='cpu', precision='fp32', epochs=0, pretrain=1, pretrain_opt='muon')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        train(TrainConfig(**tiny, width=8, depth=1, symmetry='p4m', out=str(tmp_path/'a')))
        first = tmp_path/'a'/'weights.safetensors'
        train(TrainConfig(**tiny, init=str(first), strength=.5, out=str(tmp_path/'b')))
        train(TrainConfig(**tiny, init=str(first), init_scale=2, scale=3, out=str(tmp_path/'c')))
    for o in 'abc': assert asymmetry(load_weights(tmp_path/o/'weights.safetensors'), 'p4m')<1e-5
    assert read_card(first)['config']['symmetry']=='p4m' and '--symmetry=p4m' in read_card(first)['command']
    with pytest.raises(ValueError, match='symmetry: weights to start from'): TrainConfig(init=str(first), symmetry='p4')
    with pytest.raises(ValueError, match='multiple of 8'): train(TrainConfig(**tiny, width=12, symmetry='p4m', out=str(tmp_path/'d')))

@groups
@pytest.mark.parametrize('dtype', [np.uint8,np.uint16])
def test_an_ensemble_asks_only_for_answers_that_differ(name, dtype, monkeypatch):
    net,calls = Generator(width=8, depth=1, symmetry=name).eval(),[]
    monkeypatch.setattr(net, '_features', lambda x, was=net._features: calls.append(1) or was(x))
    x = (np.random.default_rng(0).random((12,15,3))*np.iinfo(dtype).max).astype(dtype)
    one = upscale(x, 2, net, precision='fp32')
    n = len(calls)
    mean = upscale(x, 2, net, precision='fp32', ensemble=True)
    assert (len(calls)-n)//n==8//len(GROUPS[name])
    plain = Generator(**{**net.config, 'symmetry':None}).eval()
    plain.load_state_dict(net.state_dict())
    assert np.abs(mean.astype(int)-upscale(x, 2, plain, precision='fp32', ensemble=True)).max()<=1
    if name=='p4m': assert np.abs(mean.astype(int)-one).max()<=1

def test_onnx_is_the_same_network(tmp_path):
    net = Generator(width=8, depth=1, symmetry='p4m').eval()
    export_onnx(net, tmp_path/'n.onnx')
    x = np.random.default_rng(0).integers(0, 256, (9,12,3), np.uint8)
    assert np.abs(upscale(x, 2, tmp_path/'n.onnx').astype(int)-upscale(x, 2, net, precision='fp32')).max()<=1

def test_between_a_start_and_what_came_of_it(tmp_path):
    a,b = (Generator(width=8, depth=1, symmetry='p4m') for _ in range(2))
    save_weights(b, tmp_path/'w.safetensors', start=a)
    assert asymmetry(load_weights(tmp_path/'w.safetensors', strength=.3), 'p4m')<1e-6

def test_weights_that_lost_it_do_not_claim_it(tmp_path):
    "As after a training that knows nothing of it; what is between such weights and their start has none either."
    a,b = (Generator(width=8, depth=1, symmetry='p4m') for _ in range(2))
    with torch.no_grad(): b.joined.weight[0] += .1
    for model,start,kept in ((a,None,'p4m'),(b,None,None),(a,b,None),(b,a,None)):
        save_weights(model, tmp_path/'w.safetensors', start=start)
        assert load_weights(tmp_path/'w.safetensors').symmetry==kept
