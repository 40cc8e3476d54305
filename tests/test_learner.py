"What fastai's own GAN code gets wrong, one test each, and what a `Learner` promises."
import os, socket, warnings
from pathlib import Path
import pytest, torch
from torch import nn
from torch.nn import functional as F
from fastai.callback.fp16 import MixedPrecision
from fastai.vision.all import Callback, DataLoaders, TfmdDL, TfmdLists, Transform, load_learner, noop, np
from fastai.vision.gan import AdaptiveGANSwitcher, FixedGANSwitcher, GANLearner
from sr_fastai.learner import SRGANLearner, gan_learner
from sr_fastai.models import Generator, Discriminator

def pairs(n, seed=0):
    "Smooth HR pictures and their LR, so that a few steps learn something."
    g = torch.Generator().manual_seed(seed)
    hr = F.interpolate(torch.rand(n,3,6,6, generator=g), size=(24,24), mode='bicubic').clamp(0,1)
    return list(zip(F.avg_pool2d(hr, 2), hr))

class Pick(Transform):
    "The i-th of `items`."
    def __init__(self, items): self.items = items
    def encodes(self, i): return self.items[i]

def tiny_dls(n=10, bs=2): return DataLoaders(*[TfmdDL(TfmdLists(range(len(p)), Pick(p)), bs=bs) for p in (pairs(n),pairs(4, 1))])

class BNGenerator(Generator):
    "A generator with the batch normalisation that ours lacks."
    def __init__(self):
        super().__init__(2, width=8, depth=1)
        self.blocks.append(nn.BatchNorm2d(8))

def tiny_learner(tmp_path, n=10, norm='batch', generator=None, **kwargs):
    torch.manual_seed(0)
    kwargs = {'lr':1e-3, **kwargs}
    return gan_learner(tiny_dls(n), generator or BNGenerator(), Discriminator(width=4, depth=2, pool=2, hidden=8, norm=norm), path=tmp_path, **kwargs)

def snapshot(m): return {k:v.clone() for k,v in m.state_dict().items()}
def drift(m, before): return max((v.double()-before[k].double()).abs().max().item() for k,v in m.state_dict().items())

class Watch(Callback):
    "Records, for each training batch, whose turn it was and how far each net moved."
    order = 40
    def before_fit(self): self.turns,self.moved,self.hypers = '',[],[]
    def before_batch(self):
        if self.training: self.was = [snapshot(m) for m in (self.model.generator,self.model.critic)]
    def after_batch(self):
        if not self.training: return
        self.turns += 'CG'[self.gan_trainer.gen_step]
        self.moved.append([drift(m, w) for m,w in zip((self.model.generator,self.model.critic), self.was)])
        self.hypers.append([h['lr'] for h in self.opt.hypers])

def test_1_resting_net_does_not_move(tmp_path):
    learn,watch = tiny_learner(tmp_path),Watch()
    with learn.no_bar(), learn.no_logging(): learn.fit(2, cbs=watch)
    assert set(watch.turns)=={'C','G'}
    for turn,(gen,crit) in zip(watch.turns, watch.moved):
        assert (gen if turn=='C' else crit)==0. # weights and running statistics
        assert (crit if turn=='C' else gen)>0.

def test_2_validation_and_prediction_leave_the_nets_as_they_are(tmp_path):
    learn = tiny_learner(tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    before = snapshot(learn.model)
    learn.validate()
    p1,_ = learn.get_preds()
    p2,_ = learn.get_preds()
    assert drift(learn.model, before)==0.
    assert torch.equal(p1, p2)
    assert not learn.model.generator.training

@pytest.mark.parametrize('norm', ['batch','spectral'])
def test_3_export_after_fit(tmp_path, norm):
    learn = tiny_learner(tmp_path, norm=norm)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    dls = learn.dls
    learn.export('learner.pkl')
    assert learn.dls is dls
    x = torch.rand(1,3,5,7)
    loaded = load_learner(tmp_path/'learner.pkl')
    loaded.model.eval(); learn.model.eval()
    assert torch.equal(loaded.model(x), learn.model(x))
    with learn.no_bar(), learn.no_logging(): learn.fit(1) # and training goes on

def test_failed_export_leaves_the_learner_and_no_file(tmp_path):
    learn = tiny_learner(tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    learn.extra = (i for i in range(3)) # no generator can be pickled
    dls = learn.dls
    with pytest.raises(TypeError): learn.export('learner.pkl')
    assert learn.dls is dls and learn.opt is not None and not list(tmp_path.glob('*'))

def test_4_reset_opt_keeps_all_parameters(tmp_path):
    learn = tiny_learner(tmp_path)
    def n_params(): return [sum(p.numel() for pg in o.param_lists for p in pg) for o in (learn.opt.generator,learn.opt.critic)]
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        before = n_params()
        learn.fit(1, reset_opt=True)
    assert n_params()==before==[sum(p.numel() for p in m.parameters()) for m in (learn.model.generator,learn.model.critic)]
    assert all(p.requires_grad for p in learn.model.parameters())

def test_5_validation_losses_are_of_the_validation_set(tmp_path):
    learn = tiny_learner(tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit(2)
    row = dict(zip(learn.recorder.metric_names[1:], learn.recorder.values[-1]))
    g,d = learn.model.generator.eval(),learn.model.critic.eval()
    lr,hr = map(torch.stack, zip(*pairs(4, 1)))
    with torch.no_grad(): fake,real_l,fake_l = g(lr),d(hr),d(g(lr))
    bce = F.binary_cross_entropy_with_logits
    assert row['valid_loss']==pytest.approx((F.l1_loss(fake, hr) + 1e-3*bce(fake_l, torch.ones(4,1))).item(), rel=1e-4)
    assert row['crit_valid_loss']==pytest.approx((bce(real_l, torch.ones(4,1)) + bce(fake_l, torch.zeros(4,1))).item()/2, rel=1e-4)
    assert row['d_real']==pytest.approx(real_l.sigmoid().mean().item(), rel=1e-4)
    assert row['d_fake']==pytest.approx(fake_l.sigmoid().mean().item(), rel=1e-4)
    assert len({row[k] for k in ('train_loss','crit_train_loss','valid_loss','crit_valid_loss')})==4

@pytest.mark.parametrize('kw,turns', [(dict(n_crit=3), 'CCCGCCCGCCCG'), (dict(n_gen=2, gen_first=True), 'GGCGGCGGCGGC'), ({}, 'CGCGCGCGCGCG')])
def test_6_turns_go_on_across_epochs(tmp_path, kw, turns):
    learn,watch = tiny_learner(tmp_path, n=8, **kw),Watch()
    with learn.no_bar(), learn.no_logging(): learn.fit(3, cbs=watch)
    assert watch.turns==turns

def test_7_two_learning_rates_with_one_cycle(tmp_path):
    learn,watch = tiny_learner(tmp_path, n=20, lr=(1e-3,4e-3)),Watch()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(2, cbs=watch)
        assert all(c==pytest.approx(4*g) for g,c in watch.hypers)
        assert max(g for g,_ in watch.hypers)==pytest.approx(1e-3, rel=.05)
        learn.fit_flat_cos(1, slice(1e-4,3e-4), cbs=watch)
        assert watch.hypers[0]==pytest.approx([1e-4,3e-4])
        learn.fit(1, cbs=watch)
        assert watch.hypers[-1]==pytest.approx([1e-3,4e-3])

def _distributed(rank, port, path):
    "One of two processes on CPU."
    os.environ.update(RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK=str(rank), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    torch.set_num_threads(1)
    import sr_fastai.distributed
    learn,watch = tiny_learner(Path(path), n=12, norm='spectral', generator=Generator(2, width=8, depth=1)),Watch()
    torch.manual_seed(rank) # what is not synchronised would differ
    for p in learn.model.parameters(): p.data += .01*torch.randn_like(p)
    with learn.no_bar(), learn.no_logging(), learn.distrib_ctx(): learn.fit(2, cbs=watch)
    torch.save(dict(model=learn.model.state_dict(), turns=watch.turns, moved=watch.moved, row=list(learn.recorder.values[-1])), Path(path)/f'{rank}.pt')

def test_8_two_processes(tmp_path):
    pytest.importorskip('accelerate')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    torch.multiprocessing.spawn(_distributed, (port,str(tmp_path)), nprocs=2)
    a,b = (torch.load(tmp_path/f'{i}.pt', weights_only=True) for i in (0,1))
    for k in a['model']: assert torch.equal(a['model'][k], b['model'][k]), k
    assert a['turns']==b['turns']=='CGCGCG' # 12 pairs, batches of 2 on each of two processes
    for turn,(gen,crit) in zip(a['turns'], a['moved']):
        assert (gen if turn=='C' else crit)==0. and (crit if turn=='C' else gen)>0.
    # validation is of the whole set on both
    assert a['row'][2:]==pytest.approx(b['row'][2:])

def test_model_is_the_generator(tmp_path):
    learn = tiny_learner(tmp_path)
    assert isinstance(learn, GANLearner)
    learn.model.eval()
    x = torch.rand(1,3,4,4)
    assert learn.model(x).shape==(1,3,8,8)
    assert torch.equal(learn.model(x), learn.model.generator(x))

def test_train_losses_are_the_means_of_each_nets_batches(tmp_path):
    class SeenLosses(Callback):
        def before_fit(self): self.seen = {True:[], False:[]}
        def after_batch(self):
            if self.training: self.seen[self.gan_trainer.gen_step].append(self.loss.item())
    learn,seen = tiny_learner(tmp_path),SeenLosses()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=seen)
    row = dict(zip(learn.recorder.metric_names[1:], learn.recorder.values[-1]))
    assert row['train_loss']==pytest.approx(np.mean(seen.seen[True]))
    assert row['crit_train_loss']==pytest.approx(np.mean(seen.seen[False]))
    assert len(learn.recorder.losses)==len(seen.seen[True])

def test_training_learns(tmp_path):
    learn = tiny_learner(tmp_path, n=40, generator=Generator(2, width=8, depth=1), lr=3e-3)
    before = learn.validate()
    with learn.no_bar(), learn.no_logging(): learn.fit(4)
    names = learn.recorder.metric_names[1:]
    assert learn.recorder.values[-1][names.index('psnr')] > before[names.index('psnr')-2] + 1 # `validate` has no training columns

def test_save_load_keeps_both_optimizers(tmp_path):
    learn = tiny_learner(tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    learn.save('two')
    other = tiny_learner(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        other.load('two')
    assert drift(other.model, learn.model.state_dict())==0.
    for a,b in ((learn.opt.generator,other.opt.generator),(learn.opt.critic,other.opt.critic)):
        sa,sb = a.state_dict()['state'],b.state_dict()['state']
        assert all(torch.equal(x['sqr_avg'], y['sqr_avg']) for x,y in zip(sa,sb))

@pytest.mark.parametrize('to', ['to_bf16','to_fp16'])
def test_mixed_precision_on_this_device(tmp_path, to):
    learn,watch = tiny_learner(tmp_path, norm='spectral'),Watch()
    getattr(learn, to)()
    dtypes = set()
    learn.model.critic.blocks[0][0].register_forward_hook(lambda m,i,o: dtypes.add(o.dtype))
    with learn.no_bar(), learn.no_logging(): learn.fit(2, cbs=watch)
    assert dtypes=={torch.bfloat16 if to=='to_bf16' else torch.float16}
    for turn,(gen,crit) in zip(watch.turns, watch.moved): assert (gen if turn=='C' else crit)==0.
    assert sum(map(sum, watch.moved))>0
    assert not torch.is_autocast_enabled('cpu')
    learn.to_fp32()
    assert not learn._grab_cbs(MixedPrecision)

def test_one_nets_overflow_leaves_the_others_scaler(tmp_path):
    class Overflow(Callback):
        order = 5 # before the precision callback scales
        def before_backward(self):
            if not self.gan_trainer.gen_step: self.learn.loss_grad = self.loss_grad*float('inf')
    learn,watch = tiny_learner(tmp_path, norm=None).to_fp16(),Watch()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=[watch,Overflow()])
    crit,gen = learn.mixed_precision.scalers
    assert crit.get_scale() < gen.get_scale()
    assert all(c==0. for t,(_,c) in zip(watch.turns, watch.moved) if t=='C')

def test_losses_per_image(tmp_path):
    learn = tiny_learner(tmp_path)
    *_,losses = learn.get_preds(with_loss=True)
    assert losses.shape==(4,)

def test_switch_eval_false_trains_both_in_train_mode(tmp_path):
    modes = set()
    class Modes(Callback):
        def after_pred(self):
            if self.training: modes.add((self.model.generator.training,self.model.critic.training))
    learn = tiny_learner(tmp_path, switch_eval=False)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=Modes())
    assert modes=={(True,True)}

def test_wgan_is_ours(tmp_path):
    "fastai binds `wgan` to its own class, so that a subclass gets a stock learner."
    learn,watch = SRGANLearner.wgan(tiny_dls(14), BNGenerator(), Discriminator(width=4, depth=2, pool=2, hidden=8, norm=None), path=tmp_path),Watch()
    assert isinstance(learn, SRGANLearner)
    with learn.no_bar(), learn.no_logging(): learn.fit(2, cbs=watch)
    assert watch.turns=='CCCCCGCCCCCGCC'
    assert max(p.abs().max() for p in learn.model.critic.parameters()) < .05

@pytest.mark.parametrize('switcher', [FixedGANSwitcher(n_crit=2), AdaptiveGANSwitcher(gen_thresh=1e9)])
def test_fastais_switchers_work(tmp_path, switcher):
    learn,watch = SRGANLearner(tiny_dls(), BNGenerator(), Discriminator(width=4, depth=2, pool=2, hidden=8, norm='batch'), lambda f,o,t: (o-t).abs().mean(), lambda r,f: (f-r).mean(),
                               switcher=switcher, path=tmp_path),Watch()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=watch)
    assert watch.turns==('CCGCC' if switcher.__class__ is FixedGANSwitcher else 'CGCGC')

def test_pretrain_and_lr_find_touch_the_generator_alone(tmp_path):
    learn = tiny_learner(tmp_path)
    crit,gen = snapshot(learn.model.critic),snapshot(learn.model.generator)
    learn.lr_find(num_it=12, show_plot=False)
    assert drift(learn.model.generator, gen)==0. # fastai restores it
    with learn.no_bar():
        pre = learn.pretrain(1)
        pre.logger = noop
    assert drift(learn.model.critic, crit)==0. and drift(learn.model.generator, gen)>0.
    assert len(pre.recorder.values)==1

def test_plot_gan_losses(tmp_path):
    learn = tiny_learner(tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit(3)
    axs = learn.recorder.plot_gan_losses()
    names = learn.recorder.metric_names[1:]
    for ax,cols in zip(axs, (('train_loss','valid_loss'),('crit_train_loss','crit_valid_loss'))):
        for line,col in zip(ax.lines, cols): assert list(line.get_ydata())==[r[names.index(col)] for r in learn.recorder.values]

def test_export_weights_upscale_the_same(tmp_path):
    from sr_fastai.weights import load_weights
    learn = tiny_learner(tmp_path, generator=Generator(2, width=8, depth=1))
    file = learn.export_weights(tmp_path/'mine.safetensors', licence='CC0-1.0')
    x = torch.rand(1,3,6,5)
    with torch.no_grad(): assert torch.equal(load_weights(file)(x), learn.model.generator.eval()(x))
