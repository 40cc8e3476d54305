"What one sees of a training: the table, the live graph, the previews; and each known failure, provoked for real, with the one warning that it brings."
import io, math, warnings
import numpy as np, pytest, torch
from PIL import Image
from torch.nn import functional as F
from fastai.vision.all import Callback, DataLoaders, TfmdDL, TfmdLists, Transform
from sr_fastai import show
from sr_fastai.learner import gan_learner
from sr_fastai.models import Discriminator, Generator
from sr_fastai.show import *

def pairs(n, seed):
    "Textures and their LR: an original is told from repeated pixels at a glance."
    hr = F.interpolate(torch.rand(n,3,12,12, generator=torch.Generator().manual_seed(seed)), scale_factor=2, mode='bicubic').clamp(0,1)
    return list(zip(F.avg_pool2d(hr, 2), hr))

class Pick(Transform):
    "The i-th of `items`."
    def __init__(self, items): self.items = items
    def encodes(self, i): return self.items[i]

def learner(path, n=8, norm=None, valid=None, **kwargs):
    torch.manual_seed(0)
    dls = DataLoaders(*[TfmdDL(TfmdLists(range(len(p)), Pick(p)), bs=4, num_workers=0) for p in (pairs(n, 0),valid or pairs(4, 1))])
    learn = gan_learner(dls, Generator(width=8, depth=1), Discriminator(width=8, depth=2, pool=2, hidden=16, norm=norm), path=path, **kwargs)
    learn.remove_cbs([cb for cb in learn.cbs if cb.name in ('progress','gan_watch')])
    return learn

def warned(learn, n, *cbs, **watch):
    with warnings.catch_warnings(record=True) as ws, learn.no_logging():
        warnings.simplefilter('always')
        learn.fit(n, cbs=[GANWatch(**watch), *cbs])
    return [str(w.message) for w in ws if issubclass(w.category, GANWarning)]

class Jump(Callback):
    "From an epoch on a net's rate is `lr`."
    def __init__(self, net, epoch, lr): self.net,self.at,self.to = net,epoch,lr
    def before_train(self):
        if self.epoch>=self.at: getattr(self.opt, self.net).set_hyper('lr', self.to)

def test_good_run_is_not_warned_of(tmp_path):
    learn = learner(tmp_path, n=64, lr=(3e-4,1e-3))
    assert warned(learn, 12)==[]
    row = dict(zip(learn.recorder.metric_names[1:], learn.recorder.values[-1]))
    assert row['crit_train_loss']<.95*math.log(2) # the critic had its say

def test_good_run_by_a_loss_below_zero_is_not_warned_of(tmp_path):
    assert warned(learner(tmp_path, n=64, lr=(3e-4,1e-3), pixel='log_mse'), 6)==[]

def test_critic_too_strong(tmp_path):
    msg, = warned(learner(tmp_path, n=64, lr=(1e-9,1e-3)), 18, patience=2)
    assert 'critic is too strong' in msg and 'n_gen' in msg

def test_critic_knows_its_images_by_heart(tmp_path):
    valid = [(lr,F.interpolate(hr[None], scale_factor=.5)[0].repeat_interleave(2, 1).repeat_interleave(2, 2)) for lr,hr in pairs(4, 1)] # originals as it has seen none
    msg, = warned(learner(tmp_path, n=64, valid=valid, lr=(1e-9,2e-3)), 15)
    assert 'by heart' in msg and "norm='spectral'" in msg

@pytest.mark.parametrize('rate', [1e-9,1e-1]) # it does not learn; it has been killed
def test_critic_too_weak(tmp_path, rate):
    msg, = warned(learner(tmp_path, norm='spectral', lr=(1e-3,rate)), 8, idle=10)
    assert 'critic is too weak' in msg and 'n_crit' in msg

def test_collapse(tmp_path):
    msg, = warned(learner(tmp_path, lr=1e-3), 6, Jump('generator', 2, 1e3))
    assert 'generator has collapsed' in msg and 'dB below its best' in msg

def test_divergence(tmp_path):
    msg, = warned(learner(tmp_path, lr=1e-3), 6, Jump('critic', 2, 1e2))
    assert 'diverges' in msg and 'R1' in msg

def test_each_warning_comes_once_a_fit_and_again_in_the_next(tmp_path):
    learn = learner(tmp_path, lr=(1e-3,1e-9))
    for _ in range(2): assert len(warned(learn, 6, idle=8))==1

def test_a_resumed_fit_warns_of_nothing_twice():
    a,b = GANWatch(),GANWatch()
    a.seen,a.said,a.best,a.best_pixel,a.adv,a.idling = dict(weak=2),['weak'],.1,.2,.3,40
    b.load_state_dict(a.state_dict())
    assert b.said==['weak'] and b.state_dict()==a.state_dict()

def table(learn, width, monkeypatch):
    monkeypatch.setenv('COLUMNS', str(width))
    out = io.StringIO()
    monkeypatch.setattr('fastprogress.fastprogress.WRITER_FN', lambda *args, **kwargs: print(*args, file=out) if not kwargs else None)
    learn.fit(1, cbs=GANProgress())
    return out.getvalue().splitlines()

def test_table_in_a_terminal(tmp_path, monkeypatch):
    learn = learner(tmp_path, lr=1e-3)
    head,row = table(learn, 400, monkeypatch)
    assert head.split()==list(learn.recorder.metric_names)
    assert all(head[i-2:i]=='  ' for i in (head.index(n) for n in learn.recorder.metric_names[1:]))
    assert len(row.split())==len(head.split()) and row.split()[0]=='0' and ':' in row.split()[-1]
    assert all(len(o.replace('.','').lstrip('0'))==4 for o in row.split()[1:-1])
    head,row = table(learn, 140, monkeypatch)
    assert 'd_fake' in head and 'valid_loss' in head and len(head)<=140 and len(row.split())==len(head.split())

def test_a_log_gets_rows_and_no_bar(tmp_path, capsys):
    learn = learner(tmp_path, lr=1e-3)
    learn.add_cb(GANProgress())
    learn.pretrain(2)
    learn.fit(2)
    lines = capsys.readouterr().out.split('\n')
    heads = [i for i,o in enumerate(lines) if 'train_loss' in o]
    assert heads==[0,3] and [o.split()[0] for o in (*lines[1:3],*lines[4:6])]==['0','1','0','1'] and lines[6:]==['']
    with learn.no_bar(), learn.no_logging():
        learn.pretrain(1)
        learn.fit(1)
    assert capsys.readouterr().out==''

class Shown:
    "Stands for a notebook."
    def __init__(self): self.pics = []
    def display(self, img, display_id=None): self.pics.append(img); return self
    def update(self, img): self.pics.append(img)

def test_live_graph(tmp_path, monkeypatch):
    from matplotlib import pyplot as plt
    nb,learn,figs,figure = Shown(),learner(tmp_path, lr=1e-3),[],ShowGANLosses.figure
    monkeypatch.setattr('IPython.display.display', nb.display)
    monkeypatch.setattr(ShowGANLosses, 'figure', lambda self: figs.append(figure(self)) or figs[-1])
    with learn.no_logging():
        learn.fit(1, cbs=ShowGANLosses(every=0))
        assert not nb.pics # a terminal
        monkeypatch.setattr(show, 'IN_NOTEBOOK', True)
        before = plt.get_fignums()
        learn.fit(3, cbs=ShowGANLosses(every=0))
    assert len(nb.pics)>1 and plt.get_fignums()==before
    assert Image.open(io.BytesIO(nb.pics[-1].data)).size==(1000,350)
    assert [[len(l.get_xdata()) for l in ax.lines] for ax in figs[-1].axes]==[[3,3],[3,3]]

def test_live_graph_costs_a_twentieth_at_most(tmp_path, monkeypatch):
    now = [0.]
    graph = ShowGANLosses(every=0)
    def draw():
        now[0] += 1
        return type('F', (), dict(savefig=lambda self, f, dpi: Image.new('RGB', (1,1)).save(f, 'PNG')))()
    monkeypatch.setattr(show.time, 'time', lambda: now[0])
    monkeypatch.setattr(graph, 'figure', draw)
    graph.out = Shown()
    graph.show()
    assert graph.due==1+20

def test_previews(tmp_path):
    from matplotlib import pyplot as plt
    learn,cb = learner(tmp_path, lr=1e-3),SavePreviews('seen', n=3, side=48)
    before = plt.get_fignums()
    with learn.no_logging(): learn.fit(2, cbs=cb)
    files = sorted((tmp_path/'seen').iterdir())
    assert [f.name for f in files]==['epoch_0001.png','epoch_0002.png'] and plt.get_fignums()==before
    im = Image.open(files[-1]).convert('RGB')
    assert im.size==(3*(48+6)+6, 20+3*(48+20+6))
    hr = torch.stack([y for _,y in pairs(4, 1)[:3]])
    for i in range(3): # the originals, each pixel two by two
        x,y = 6+2*54,20+20+i*74
        shown = torch.tensor(np.asarray(im)[y:y+48:2,x:x+48:2]).permute(2,0,1)
        assert torch.equal(shown, hr[i].mul(255).round().byte())
    learn.add_cb(cb)
    seen = [f.read_bytes() for f in files]
    learn.validate(); learn.get_preds()
    assert sorted((tmp_path/'seen').iterdir())==files and [f.read_bytes() for f in files]==seen # an epoch's own validation only

def test_previews_of_large_pictures_show_the_same_middle():
    hr = torch.arange(30*44).reshape(1,1,30,44).float()/(30*44)
    hr = F.interpolate(hr, scale_factor=2).expand(1,3,60,88)
    grid = preview_grid(F.avg_pool2d(hr, 2), hr, hr, side=20)
    lr,sr = (grid.crop((6+i*26,40,26+i*26,60)) for i in range(2))
    assert lr.tobytes()==sr.tobytes()

def test_results_are_shown_pixel_for_pixel_with_the_same_detail_enlarged():
    from matplotlib import pyplot as plt
    from sr_fastai.data import TensorHR, TensorLR, show_results
    hr = torch.full((3,40,60), .5)
    hr[:,4:10,44:52] = torch.rand(3,6,8, generator=torch.Generator().manual_seed(0)) # the only edges
    lr,sr = F.avg_pool2d(hr[None], 2)[0],hr*.9
    axs = show_results(TensorLR(lr[None]), TensorHR(hr[None]), [(lr,hr)], [(sr,)])
    size = axs[0].get_window_extent()
    assert size.width/60==pytest.approx(size.height/40) and size.width/60==pytest.approx(round(size.width/60))
    assert len({(ax.patches[0].get_xy(),ax.patches[0].get_width()) for ax in axs})==1
    (l,t),n = axs[0].patches[0].get_xy(),axs[0].patches[0].get_width()
    l,t = int(l+.5),int(t+.5)
    assert l<52 and l+n>44 and t<10 and t+n>4
    for ax,img in zip(axs[1:], (sr,hr)):
        sub, = ax.child_axes
        assert torch.equal(torch.as_tensor(sub.images[0].get_array()), img[:,t:t+n,l:l+n].permute(1,2,0))
    assert [ax.get_title() for ax in axs][::2]==['LR 30x20','HR 60x40'] and 'dB' in axs[1].get_title()
    assert not show_results(TensorLR(lr[None]), TensorHR(hr[None]), [(lr,hr)], [(sr,)], zoom=0)[0].child_axes
    plt.close('all')
