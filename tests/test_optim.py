"Optimizers in what a training does to them: layers that die, layouts that change, groups."
import pytest, torch
from torch import nn
from sr_fastai.optim import Muon, fused_adam, muon

def test_a_layer_without_gradients_comes_to_rest():
    "A block whose ReLUs are all off has gradients of zero; its averages fade until their squares underflow, and the step must fade with them. It became NaN instead, in the eleventh epoch of a generator."
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(8,4,3,3))
    opt = Muon([p])
    p.grad = torch.randn_like(p)
    opt.step()
    p.grad = torch.zeros_like(p)
    for _ in range(3000): opt.step()
    was = p.detach().clone()
    opt.step()
    assert p.isfinite().all() and (p-was).abs().max()==0

@pytest.mark.parametrize('opt_func', [fused_adam, muon])
def test_averages_follow_the_layout(opt_func):
    "`fit`, `to_bf16`, `fit`: torch's fused kernel would mix up the elements of a weight that was laid out anew."
    def trained(relaid):
        torch.manual_seed(0)
        net,x = nn.Conv2d(4, 8, 3),torch.randn(2,4,9,9)
        opt = opt_func(list(net.parameters()), lr=.1)
        for i in range(4):
            if relaid and i==2: net.to(memory_format=torch.channels_last)
            net(x).square().mean().backward()
            opt.step()
            opt.zero_grad()
        return net.weight.detach()
    torch.testing.assert_close(trained(True), trained(False), rtol=1e-4, atol=1e-5)

def test_weight_decay_and_groups():
    a,b = nn.Parameter(torch.ones(4,4)),nn.Parameter(torch.ones(4))
    opt = Muon([dict(params=[a], weight_decay=.5), dict(params=[b], lr=0.)], lr=.1)
    for p in (a,b): p.grad = torch.zeros_like(p)
    opt.step()
    torch.testing.assert_close(a.detach(), torch.full((4,4), .95))
    assert (b==1).all()
