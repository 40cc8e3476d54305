"CUDA graphs in training."
from types import SimpleNamespace
import pytest, torch
from fastai.vision.all import Callback
from sr_fastai.data import div2k_dataloaders
from sr_fastai.div2k import untar_div2k
from sr_fastai.graphs import CUDAGraphs
from sr_fastai.learner import gan_learner
from sr_fastai.models import Discriminator, Generator
from sr_fastai.optim import fused_adam, muon

class Forwards(Callback):
    "Whether each training batch was a graph's."
    def before_fit(self): self.were = []
    def after_pred(self):
        if self.training: self.were.append(getattr(getattr(self.learn, 'cuda_graphs', None), 'replays', False))

def pretrained(device, cbs, half=False, opt_func=muon, **kwargs):
    dls = div2k_dataloaders(untar_div2k(sample=True), size=16, bs=4, crops=2, seed=0, device=torch.device(device))
    torch.manual_seed(0)
    learn = gan_learner(dls, Generator(width=16, depth=2, symmetry='p4m').to(device), Discriminator(width=8, depth=2).to(device), ema=.9, **kwargs)
    if half: learn.to_bf16()
    seen = Forwards()
    with learn.no_bar(), learn.no_logging(): learn.pretrain(2, 1e-3, opt_func=opt_func, cbs=[seen,*cbs])
    return torch.cat([p.detach().flatten() for p in learn.model.generator.parameters()]).cpu(),seen.were,learn

def test_on_the_processor_nothing_changes():
    a,were,_ = pretrained('cpu', [CUDAGraphs()])
    assert not any(were) and torch.equal(a, pretrained('cpu', [])[0])

def test_an_interrupted_fit_leaves_the_network_as_it_was():
    "A graph is put in the network's place for one call, wherever that ends."
    def graph(x): raise KeyboardInterrupt
    cb,net,x = CUDAGraphs(),Generator(width=4, depth=1),SimpleNamespace(device=torch.device('cuda'), shape=(1,3,8,8))
    cb.learn = SimpleNamespace(xb=[x], model=net)
    cb.graphed,cb.shape = graph,x.shape
    cb.before_batch()
    with pytest.raises(KeyboardInterrupt): net(x)
    assert 'forward' not in vars(net) and net(torch.rand(1,3,8,8)).shape==(1,3,16,16)

@pytest.mark.cuda
@pytest.mark.parametrize('half', [False,True])
@pytest.mark.parametrize('opt_func', [muon,fused_adam])
def test_graphs_train_the_same(half, opt_func, tmp_path):
    a,were,learn = pretrained('cuda', [CUDAGraphs()], half, opt_func)
    b,plain,_ = pretrained('cuda', [], half, opt_func)
    assert all(were) and len(were)==len(plain) and not any(plain)
    torch.testing.assert_close(a, b, atol=3e-3 if half else 1e-4, rtol=0)
    assert 'forward' not in vars(learn.model.generator)
    learn.export_weights(tmp_path/'w.safetensors')

@pytest.mark.cuda
def test_gathered_gradients_are_those_of_each_batch():
    "A graph writes its gradients in one place: those of the batch before must not be there."
    from sr_fastai.accumulate import GANAccumulation
    a,were,_ = pretrained('cuda', [CUDAGraphs(), GANAccumulation(2)])
    assert all(were)
    torch.testing.assert_close(a, pretrained('cuda', [GANAccumulation(2)])[0], atol=1e-4, rtol=0)

@pytest.mark.cuda
def test_batches_of_another_shape_run_as_ever():
    class Crop(Callback):
        order = -40
        def before_batch(self):
            if self.training and self.iter%2: self.learn.xb,self.learn.yb = (self.xb[0][...,:8,:8],),(self.yb[0][...,:16,:16],)
    a,were,_ = pretrained('cuda', [Crop(), CUDAGraphs()])
    assert were==[i%2==0 for _ in range(2) for i in range(len(were)//2)]
    torch.testing.assert_close(a, pretrained('cuda', [Crop()])[0], atol=1e-4, rtol=0)
