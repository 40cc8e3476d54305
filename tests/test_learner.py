"What fastai's own GAN code gets wrong, one test each, and what a `Learner` promises."
import copy, os, socket, warnings
from pathlib import Path
import pytest, torch
from torch import nn
from torch.nn import functional as F
from fastai.callback.fp16 import MixedPrecision
from fastai.vision.all import Callback, DataLoaders, TfmdDL, TfmdLists, Transform, load_learner, noop, np
from fastai.vision.gan import AdaptiveGANSwitcher, FixedGANSwitcher, GANLearner
from sr_fastai.ema import averaged
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

def tiny_dls(n=10, bs=2): return DataLoaders(*[TfmdDL(TfmdLists(range(len(p)), Pick(p)), bs=bs, num_workers=0) for p in (pairs(n),pairs(4, 1))])

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

def test_summary_of_a_learner_fresh_and_trained(tmp_path, capsys):
    "It predicts in something like an epoch, without HR and before any was trained."
    learn = tiny_learner(tmp_path)
    learn.summary()
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert 'Total params' in str(learn.summary())

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
    before = learn.recorder.named(learn.validate())
    with learn.no_bar(), learn.no_logging(): learn.fit(4)
    assert learn.recorder.named(learn.recorder.values[-1])['psnr'] > before['psnr'] + 1

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
        assert sa.keys()==sb.keys() and len(sa)==len(a.param_lists[0])
        assert all(torch.equal(sa[k]['exp_avg_sq'], sb[k]['exp_avg_sq']) for k in sa)

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

def test_what_is_shown_after_a_fit_leaves_its_record_alone(tmp_path):
    "README's own order: `fit`, `show_results`, `plot_gan_losses`; all of them send a fit's events."
    learn = tiny_learner(tmp_path)
    with learn.no_bar(), learn.no_logging():
        learn.validate()
        learn.fit(3)
        r,t = learn.recorder,learn.gan_trainer
        def record(): return [list(o) for o in (r.values,r.losses,r.lrs,r.iters,t.gen_losses,t.crit_losses)]
        was = record()
        assert [len(o) for o in was[:1]]==[3] and all(was)
        for o in (learn.validate,learn.get_preds,lambda: learn.get_preds(dl=[learn.dls.one_batch()])):
            o()
            assert record()==was
        assert r.named(learn.validate()).keys()>={'valid_loss','psnr'}
        learn.fit(1)
        assert len(r.values)==1

def test_an_average_begins_with_the_weights_of_its_fit(tmp_path):
    "Not with those that `validate` saw before others were loaded."
    learn,other = (tiny_learner(tmp_path, generator=Generator(2, width=8, depth=1), ema=.999) for _ in range(2))
    with torch.no_grad():
        for p in other.model.generator.parameters(): p.mul_(1.5)
    with learn.no_bar(), learn.no_logging(), other.no_bar(), other.no_logging():
        learn.validate()
        learn.model.generator.load_state_dict(other.model.generator.state_dict())
        assert learn.validate()==other.validate()

def test_export_weights_upscale_the_same(tmp_path):
    from sr_fastai.weights import load_weights
    learn = tiny_learner(tmp_path, generator=Generator(2, width=8, depth=1))
    file = learn.export_weights(tmp_path/'mine.safetensors', licence='CC0-1.0')
    x = torch.rand(1,3,6,5)
    with torch.no_grad(): assert torch.equal(load_weights(file)(x), learn.model.generator.eval()(x))

def flat(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])
def quiet_fit(learn, n=1, **kwargs):
    with learn.no_bar(), learn.no_logging(): learn.fit(n, **kwargs)
    return learn

def test_every_term_has_a_column_in_training_and_validation(tmp_path):
    class Seen(Callback):
        order = 45
        def before_fit(self): self.seen = []
        def after_loss(self):
            if self.training and self.gan_trainer.gen_step: self.seen.append({k:v.item() for k,v in self.loss_func.gen_loss_func.terms.items()})
    learn,seen = tiny_learner(tmp_path, w_pixel=2., w_adv=.1),Seen()
    quiet_fit(learn, cbs=seen)
    row = learn.recorder.named(learn.recorder.values[-1])
    for k in ('pixel','adv'): assert row[f'train_{k}']==pytest.approx(np.mean([o[k] for o in seen.seen]), rel=1e-5)
    assert row['train_loss']==pytest.approx(2*row['train_pixel'] + .1*row['train_adv'], rel=1e-5)
    assert row['valid_loss']==pytest.approx(2*row['valid_pixel'] + .1*row['valid_adv'], rel=1e-5)
    assert learn.recorder.named(learn.validate())=={k:pytest.approx(v) for k,v in row.items() if 'train' not in k}

def test_logits_are_float32_in_mixed_precision(tmp_path):
    "In bfloat16 every adversarial loss was a multiple of 1/256."
    learn = quiet_fit(tiny_learner(tmp_path, norm='spectral').to_bf16())
    assert all(v.dtype==torch.float32 for v in learn.loss_func.values.values())

@pytest.mark.parametrize('joint', [False,True])
def test_relativistic_turns_leave_the_critic_as_it_is(tmp_path, joint):
    "The generator's turn needs the critic's word on originals too: frozen, in eval mode."
    learn,watch = tiny_learner(tmp_path, adv='relativistic', norm='batch', w_adv=1., joint=joint),Watch()
    logits = []
    class Turns(Callback):
        def before_fit(self): self.was = None
        def before_batch(self): self.was = None
        def after_loss(self):
            if self.training and self.gan_trainer.gen_step: self.was = snapshot(self.model.critic)
        def after_backward(self):
            if self.gan_trainer.gen_step: assert all(p.grad is None for p in self.model.critic.parameters())
        def after_batch(self):
            if self.training and self.was is not None: logits.append(drift(self.model.critic, self.was))
    quiet_fit(learn, cbs=[watch,Turns()])
    assert logits and max(logits)==0.

def test_joint_is_a_critic_step_then_a_generator_step_on_the_same_batch(tmp_path):
    "Against the same steps written out in PyTorch."
    torch.manual_seed(0)
    gen,crit = Generator(2, width=8, depth=1),Discriminator(width=4, depth=2, pool=2, hidden=8, norm=None)
    g,d = [copy.deepcopy(m) for m in (gen,crit)]
    class Count(Callback):
        n = 0
        def after_pred(self): Count.n += self.training
    learn = quiet_fit(gan_learner(tiny_dls(), gen, crit, joint=True, w_adv=.1, lr=(1e-3,2e-3), path=tmp_path, cbs=Count()))
    assert Count.n==5 # the generator runs once a batch
    og,od = (torch.optim.AdamW(m.parameters(), lr, (.9,.99), weight_decay=0.) for m,lr in ((g,1e-3),(d,2e-3)))
    sp = F.softplus
    for lr,hr in [map(torch.stack, zip(*pairs(10)[i:i+2])) for i in range(0, 10, 2)]:
        fake = g(lr)
        d.train()
        ((sp(-d(hr)) + sp(d(fake.detach())))/2).mean().backward()
        od.step()
        d.eval()
        (F.l1_loss(fake, hr) + .1*sp(-d(fake)).mean()).backward()
        og.step()
        og.zero_grad(); od.zero_grad()
    for a,b in ((gen,g),(crit,d)):
        assert drift(a, b.state_dict())<1e-4 # Adam makes much of a gradient's last digit: a step is 1e-3

def test_joint_is_not_for_ratios(tmp_path):
    with pytest.raises(ValueError, match='n_crit and n_gen have no meaning'): tiny_learner(tmp_path, joint=True, n_crit=2)
    with pytest.raises(ValueError, match='at least 1'): tiny_learner(tmp_path, n_crit=0)

@pytest.mark.parametrize('how', ['alternate','joint','bf16'])
def test_ema_is_what_is_validated_saved_and_exported(tmp_path, how):
    from sr_fastai.weights import load_weights
    raw = []
    class Own(Callback):
        order = 90
        def after_batch(self):
            if self.training and self.gan_trainer.gen_step: raw.append(snapshot(self.model.generator))
    learn = tiny_learner(tmp_path, generator=Generator(2, width=8, depth=1), ema=.5, joint=how=='joint', norm='spectral', lr=1e-2)
    start = snapshot(learn.model.generator)
    if how=='bf16': learn.to_bf16()
    quiet_fit(learn, 2, cbs=Own())
    want = start
    for t,sd in enumerate(raw, 1):
        d = min(.5, (1+t)/(10+t))
        want = {k:d*want[k] + (1-d)*v for k,v in sd.items()}
    assert drift(learn.model.generator, raw[-1])==0. # it trains on with its own weights
    with averaged(learn): assert drift(learn.model.generator, want)<1e-5
    if how!='alternate': return
    lr = torch.stack([o for o,_ in pairs(4, 1)])
    with averaged(learn): avg = learn.model(lr).detach()
    assert not torch.equal(avg, learn.model(lr))
    assert torch.equal(learn.get_preds()[0], avg)
    assert torch.equal(load_weights(learn.export_weights(tmp_path/'w.safetensors'))(lr), avg)
    learn.export('l.pkl')
    loaded = load_learner(tmp_path/'l.pkl')
    assert torch.equal(loaded.model(lr), avg) and loaded.ema.avg is None
    before = snapshot(learn.model.generator)
    learn.save('m')
    assert drift(learn.model.generator, before)==0.
    learn.load('m')
    assert torch.equal(learn.model(lr), avg)
    quiet_fit(learn)

def test_gradients_are_clipped_for_each_net(tmp_path):
    norms = {True:[], False:[]}
    class Norms(Callback):
        order = 60
        def before_step(self): norms[self.gan_trainer.gen_step].append(torch.nn.utils.get_total_norm([p.grad for p in self.opt.turn.param_lists[0]]).item())
    quiet_fit(tiny_learner(tmp_path, clip_grad=(1e-3,None)), cbs=Norms())
    assert max(norms[True])<=1.0001e-3 < max(norms[False])

class Poison(Callback):
    "Gradients without a value in the batches `at`; `moved` says for each batch how far each net's weights went."
    order = 45
    def __init__(self, at): self.at,self.moved = at,[]
    def nets(self): return [torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (self.model.generator,self.model.critic)]
    def before_batch(self): self.was = self.nets()
    def after_loss(self):
        if self.training and self.train_iter in self.at: self.learn.loss_grad = self.loss_grad*float('nan')
    def after_batch(self):
        if self.training: self.moved.append([(a-b).abs().max().item() for a,b in zip(self.nets(), self.was)])

@pytest.mark.parametrize('how', ['fp32','bf16','fp16','fastai','joint'])
def test_steps_that_are_not_finite_are_left_out_and_counted(tmp_path, how):
    from fastai.optimizer import Adam
    joint = how=='joint'
    learn = tiny_learner(tmp_path, norm='spectral', **(dict(opt_func=Adam) if how=='fastai' else dict(joint=joint)))
    if how in ('bf16','fp16'): getattr(learn, f'to_{how}')(**(dict(init_scale=2.) if how=='fp16' else {}))
    bad = Poison({2} if joint else {2,3})
    with pytest.warns(UserWarning, match='1 steps of the generator and 1 of the critic were not finite'): quiet_fit(learn, cbs=bad)
    assert learn.gan_steps.skipped==dict(generator=1, critic=1)
    assert [[m>0 for m in ms] for ms in bad.moved]==([[True,True]]*2+[[False]*2]+[[True,True]]*2 if joint else [[False,True],[True,False],[False]*2,[False]*2,[False,True]])
    assert flat(learn).isfinite().all()
    row = learn.recorder.named(learn.recorder.values[-1])
    assert all(np.isfinite(row[k]) for k in ('train_loss','crit_train_loss','valid_loss'))

def test_training_stops_after_many_steps_that_are_not_finite(tmp_path):
    from sr_fastai.steps import GANSteps, NonFiniteError
    learn = tiny_learner(tmp_path)
    learn.gan_steps.patience = 2
    with pytest.raises(NonFiniteError, match='gradients of the generator were not finite: training is stopped'): quiet_fit(learn, 3, cbs=Poison({1,3}))
    quiet_fit(learn) # the nets are whole
    assert flat(learn).isfinite().all()

@pytest.mark.parametrize('to', ['', 'to_bf16', 'to_fp16'])
def test_r1_is_the_papers_penalty_in_any_precision(tmp_path, to):
    "Every other batch of the critic, with twice the weight."
    learn = tiny_learner(tmp_path, norm='spectral', r1=3., r1_every=2, n=16)
    if to: getattr(learn, to)()
    got = []
    class See(Callback):
        order = 45
        def after_loss(self):
            if not self.training or self.gan_trainer.gen_step: return
            v = self.loss_func.values
            got.append(self.loss.item()-v['crit_loss'].mean().item())
            if 'r1' not in v: return
            x = self.y.clone().requires_grad_()
            with torch.autocast('cpu', enabled=False): slope, = torch.autograd.grad(self.model.critic.eval()(x).sum(), x)
            self.model.critic.train()
            assert v['r1']==pytest.approx(slope.square().sum((1,2,3)), rel=1e-2) # a power iteration of the spectral norm lies between
            assert got[-1]==pytest.approx(3/2*2*v['r1'].mean().item(), rel=1e-2, abs=1e-5)
    quiet_fit(learn, cbs=See())
    assert len(got)==4 and all(g>0 for g in got[::2]) and got[1::2]==pytest.approx([0,0], abs=1e-6)
    assert learn.recorder.named(learn.recorder.values[-1])['train_r1']>0
    assert flat(learn).isfinite().all()

def test_fit_flat_cos_and_one_cycle_schedule_both_nets(tmp_path):
    learn,watch = tiny_learner(tmp_path, n=40),Watch()
    with learn.no_bar(), learn.no_logging():
        learn.fit_flat_cos(2, (1e-3,4e-3), cbs=watch)
        gs,cs = zip(*watch.hypers)
        assert cs==pytest.approx([4*g for g in gs])
        assert gs[0]==gs[len(gs)//2]==pytest.approx(1e-3) and gs[-1]<5e-5
        learn.fit_one_cycle(2, slice(1e-4,3e-4), cbs=watch)
        gs,cs = zip(*watch.hypers)
        assert cs==pytest.approx([3*g for g in gs])
        assert gs[0]==pytest.approx(1e-4/25) and max(gs)==pytest.approx(1e-4, rel=.01) and gs[-1]<1e-6
    assert all(type(pg['lr']) is float for o in learn.opt.nets for pg in o.param_groups) # what a weights-only load takes

def test_state_of_a_resumed_run(tmp_path):
    "Callbacks' states go through a weights-only file, and a run goes on with them as if it had not stopped."
    def make():
        learn = tiny_learner(tmp_path, n=14, n_crit=2, ema=.9, norm='spectral', r1=1., r1_every=3).to_fp16()
        return learn,[getattr(learn, k) for k in ('gan_trainer','gan_switcher','recorder','mixed_precision','gan_steps','ema')]
    class Save(Callback):
        order = 100
        def after_epoch(self):
            if self.epoch==0: torch.save(dict(model=self.model.state_dict(), opt=self.opt.state_dict(), cbs={c.name:c.state_dict() for c in self.cbs if hasattr(type(c), 'state_dict')}), tmp_path/'run.pt')
    class Resume(Callback):
        order = 100
        def before_fit(self):
            sd = torch.load(tmp_path/'run.pt', weights_only=True)
            self.model.load_state_dict(sd['model']); self.opt.load_state_dict(sd['opt'])
            for k,v in sd['cbs'].items(): getattr(self.learn, k).load_state_dict(v)
    whole,cbs = make()
    quiet_fit(whole, 2, cbs=Save())
    other,cbs2 = make()
    with torch.no_grad():
        for p in other.model.parameters(): p += 1
    quiet_fit(other, 2, start_epoch=1, cbs=Resume())
    assert torch.equal(flat(whole), flat(other))
    assert whole.recorder.values[1]==other.recorder.values[-1]
    for a,b in zip(cbs, cbs2):
        if a.name!='recorder': assert str(a.state_dict())==str(b.state_dict()), a.name

def test_critic_alone(tmp_path):
    learn,watch = tiny_learner(tmp_path, joint=True, ema=.9),Watch()
    gen = snapshot(learn.model.generator)
    with learn.no_bar(), learn.no_logging():
        learn.pretrain_critic(2, 1e-3, cbs=watch)
        assert set(watch.turns)=={'C'} and drift(learn.model.generator, gen)==0.
        learn.fit(1, cbs=watch)
    assert set(watch.turns)=={'G'} and drift(learn.model.generator, gen)>0. # a joint batch ends with the generator

def test_bad_input_is_told_in_one_sentence(tmp_path):
    def make(gen=None, crit=None, dls=None, **kw): return gan_learner(dls or tiny_dls(), gen or Generator(2, 8, 1), crit or Discriminator(4, 2, 2, 8), path=tmp_path, **kw)
    with pytest.raises(ValueError, match=r"the generator makes 36x36 of LR pictures of 12x12, but their HR pictures are 24x24"): quiet_fit(make(Generator(3, 8, 1)))
    dls = tiny_dls()
    dls.train.scale = 2
    with pytest.raises(ValueError, match=r'the generator enlarges 3 times, but .* 2 times'): make(Generator(3, 8, 1), dls=dls)
    small = nn.Sequential(nn.Flatten(), nn.Linear(3*16*16, 1))
    before = snapshot(small)
    with pytest.raises(ValueError, match=r"^the critic takes no pictures of 24x24"): quiet_fit(make(crit=small))
    assert drift(small, before)==0.
    with pytest.raises(ValueError, match='no validation pairs'): make(dls=DataLoaders(tiny_dls().train))
    with pytest.raises(ValueError, match='no validation pairs'): make(dls=DataLoaders(tiny_dls().train, TfmdDL([], bs=2)))
    for k,v in dict(w_pixel=-1., w_adv=-.1, w_percep=-1., r1=-1., ema=1.5, clip_grad=-1.).items():
        with pytest.raises(ValueError, match=f"{k.replace('clip_grad', 'clip').replace('ema', 'decay')} must"): make(**{k:v})

def test_load_and_pretrain_after_an_interrupted_fit(tmp_path):
    "Ctrl-C in a validation leaves the average in the generator's place, and in the critic's turn the generator frozen."
    learn = tiny_learner(tmp_path, ema=.9)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        learn.save('a')
        with averaged(learn): saved = snapshot(learn.model)
        learn.fit(1)
        learn.ema.use(True)
        learn.load('a')
        assert not drift(learn.model, saved)
        saved = snapshot(learn.model.generator)
        for p in learn.model.generator.parameters(): p.requires_grad_(False)
        learn.ema.use(True)
        learn.pretrain(1)
    assert drift(learn.model.generator, saved)>0

def test_pretraining_keeps_what_was_restored_as_the_best(tmp_path):
    "Its end put the average of the last epoch in that place."
    from fastai.callback.all import SaveModelCallback
    class Spoil(Callback):
        def after_batch(self):
            if self.training and self.epoch: [p.data.add_(.5) for p in self.model.parameters()]
    learn = tiny_learner(tmp_path, ema=.5)
    with learn.no_bar(), learn.no_logging():
        pre = learn.pretrain(3, cbs=[SaveModelCallback(monitor='psnr'), Spoil()])
        i = pre.recorder.metric_names.index('psnr')-1
        first,*others = [row[i] for row in pre.recorder.values]
        assert max(others)<first-1 and abs(learn.recorder.named(learn.validate())['psnr']-first)<1e-4

def test_a_file_is_lr_where_lr_is_made_of_hr_too(tmp_path):
    from PIL import Image
    from sr_fastai.data import sr_dataloaders
    for i in range(4): Image.fromarray(np.random.default_rng(i).integers(0, 256, (40,40,3), np.uint8)).save(tmp_path/f'{i}.png')
    learn = gan_learner(sr_dataloaders(tmp_path, size=8, bs=2, cache=tmp_path/'cache'), Generator(2, width=8, depth=1), Discriminator(width=4, depth=2, pool=2, hidden=8), path=tmp_path)
    with learn.no_bar(): by_name,by_pixels = (learn.predict(o)[2] for o in (tmp_path/'0.png', Image.open(tmp_path/'0.png')))
    assert by_name.shape==(3,80,80) and torch.equal(by_name, by_pixels)

def test_gathered_gradients_under_an_optimizer_of_fastais(tmp_path):
    "It zeroes gradients in place, and those that were held with them."
    from fastai.vision.all import Adam
    from sr_fastai.accumulate import GANAccumulation
    class First(Callback):
        order,grads = GANAccumulation.order+1,None
        def before_step(self):
            if self.grads is None: self.grads = [p.grad.clone() for p in self.model.parameters()]
    def first(**kw):
        torch.manual_seed(0)
        learn,seen = tiny_learner(tmp_path, cbs=GANAccumulation(3), generator=Generator(2, width=8, depth=1), **kw),First()
        with learn.no_bar(), learn.no_logging(): learn.pretrain(1, cbs=seen)
        return seen.grads
    for a,b in zip(first(), first(opt_func=Adam)): torch.testing.assert_close(a, b)

def test_what_fastai_has_and_this_learner_has_in_another_way(tmp_path):
    from fastai.vision.gan import GANDiscriminativeLR
    with pytest.raises(ValueError, match='an optimizer of its own'): quiet_fit(tiny_learner(tmp_path), cbs=GANDiscriminativeLR())
    learn = tiny_learner(tmp_path)
    learn.recorder.train_metrics = True
    with pytest.raises(ValueError, match='metrics are of validation'): quiet_fit(learn)

def test_counting_batches_of_both_nets_together_is_refused(tmp_path):
    from fastai.callback.all import GradientAccumulation
    with pytest.raises(ValueError, match='use GANAccumulation'), tiny_learner(tmp_path).no_bar(): tiny_learner(tmp_path).fit(1, cbs=GradientAccumulation(n_acc=4))

@pytest.mark.parametrize('pre', [False,True])
def test_rates_can_be_set_in_place(pre, tmp_path):
    "As `ReduceLROnPlateau` does."
    from fastai.callback.all import ReduceLROnPlateau
    from sr_fastai.optim import muon
    learn = tiny_learner(tmp_path)
    if pre: learn = learn.generator_learner(opt_func=muon)
    with learn.no_bar(), learn.no_logging(): learn.fit(3, 1e-3, cbs=ReduceLROnPlateau('valid_loss', min_delta=1e6, patience=1))
    assert all(h['lr']<1e-3 for h in learn.opt.hypers)
    learn.opt.hypers[-1]['mom'] = .5
    assert learn.opt.hypers[-1]['mom']==.5

def test_channels_last_keeps_a_scaler_for_each_net(tmp_path):
    learn = tiny_learner(tmp_path).to_channelslast()
    assert type(learn.mixed_precision).__name__=='GANMixedPrecision'
    assert learn.model.generator.first.weight.is_contiguous(memory_format=torch.channels_last)
    assert not hasattr(tiny_learner(tmp_path).to_channelslast(to_fp16=False), 'mixed_precision')

def test_data_parallel_is_refused(tmp_path):
    with pytest.raises(NotImplementedError, match='distrib_ctx'): tiny_learner(tmp_path).to_parallel()

def test_the_border_of_a_generator_that_does_not_tell_its_scale(tmp_path):
    class Own(nn.Module):
        def __init__(self): super().__init__(); self.c = nn.Conv2d(3, 3, 3, padding=1)
        def forward(self, x): return F.interpolate(self.c(x), scale_factor=2).sigmoid()
    dls = tiny_dls()
    dls.train.scale = 2
    learn = gan_learner(dls, Own(), Discriminator(width=4, depth=2, pool=2, hidden=8), path=tmp_path)
    assert [m.func.keywords['border'] for m in learn.metrics if m.name in ('psnr','ssim')]==[2,2]
    with pytest.raises(TypeError, match='not of a Own'): learn.export_weights(tmp_path/'own.safetensors')

def test_blank_images_do_not_make_psnr_infinite():
    from types import SimpleNamespace
    from sr_fastai.metrics import psnr
    from sr_fastai.recorder import ImageMetric
    m,x = ImageMetric(psnr, 'psnr'),torch.rand(3,3,16,16)
    y = x.clone()
    y[0] = (y[0]+.1).clamp(0, 1)
    m.reset()
    m.accumulate(SimpleNamespace(pred=x, yb=(y,), to_detach=lambda o: o))
    assert float(m.value)==pytest.approx(psnr(x, y)[0].item())

def test_what_a_checkpoint_held_goes_where_the_nets_are(tmp_path):
    "It was read into the processor's memory; a GPU can't add that to its own."
    learn = tiny_learner(tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    states = {cb:cb.state_dict() for cb in (learn.gan_trainer,learn.recorder)}
    assert states[learn.gan_trainer]['gen_losses'] and states[learn.recorder]['sums']
    learn.model.to('meta')
    for cb,sd in states.items(): cb.load_state_dict(sd)
    kept = [*learn.gan_trainer.gen_losses, *learn.gan_trainer.crit_losses, *learn.recorder.sums.values()]
    assert {o.device.type for o in kept}=={'meta'}
