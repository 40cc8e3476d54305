"How results are measured: LPIPS against the `lpips` package, features that cannot be had, and the command `sr_bench quality`."
import json, math
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from sr_fastai.features import FOLDER, ConvFeatures
from sr_fastai.lpips import LPIPS
from sr_fastai.losses import PerceptualLoss

data = Path(__file__).parent.parent.parent/'shared'/'data'
real = data/'perceptual'
needs_features = pytest.mark.skipif(not real.exists(), reason=f'no pretrained convolutions in {real.name}')

needs_data = pytest.mark.skipif(not (data/'Set5').exists(), reason='no Set5 and Set14')
otters = Path(__file__).parent.parent/'sr_fastai'/'assets'/'otters.png'

@needs_features
@pytest.mark.parametrize('net,theirs', [('alexnet','alex'), ('vgg16','vgg')])
def test_lpips_is_the_packages(net, theirs, monkeypatch):
    reference = pytest.importorskip('lpips')
    import torchvision.models
    build = getattr(torchvision.models, net)
    def convs_only(pretrained=False):
        "No weights for the dense layers, which take seconds."
        with torch.device('meta'): return build()
    monkeypatch.setattr(torchvision.models, net, convs_only)
    ref = reference.LPIPS(net=theirs, pnet_rand=True, verbose=False)
    ours = LPIPS(net, real/f'{net}_lpips.safetensors')
    sd = {f'{i}.{k}':v for i,m in enumerate(ours.features.net.values()) for k,v in m.state_dict().items()}
    ref.net.load_state_dict({k:sd[k.split('.', 1)[1]] for k in ref.net.state_dict()}, assign=True)
    with Image.open(otters) as im: hr = torch.from_numpy(np.array(im.convert('RGB').crop((40,30,197,161)))).permute(2,0,1)[None]/255
    noisy = (hr+torch.randn(3, *hr.shape[1:], generator=torch.Generator().manual_seed(0))*torch.tensor([.02,.1,.4]).view(3,1,1,1)).clamp(0,1)
    hr = hr.expand_as(noisy)
    with torch.no_grad(): got,want = ours(noisy, hr),ref(noisy, hr, normalize=True).flatten()
    assert want[0]<want[1]<want[2] and want[2]>.2, 'the pictures should differ'
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)

@needs_features
def test_vgg16_perceptual_loss_learns_from_the_real_network():
    "A step against the gradient brings a blurred picture nearer to its original."
    loss = PerceptualLoss('vgg16', weights=real/'vgg16_lpips.safetensors')
    with Image.open(otters) as im: hr = torch.from_numpy(np.array(im.convert('RGB').crop((40,30,104,94)))).permute(2,0,1)[None]/255
    x = torch.nn.functional.avg_pool2d(hr, 5, 1, 2).requires_grad_()
    first = loss(x, hr)
    g, = torch.autograd.grad(first.sum(), x)
    assert loss(x-g*1e-3/g.abs().mean(), hr)<first

def test_features_that_cannot_be_fetched(monkeypatch, tmp_path):
    def no_network(*args, **kwargs): raise OSError('no network')
    monkeypatch.setattr('torch.hub.urlopen', no_network)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.delenv(FOLDER, raising=False)
    with pytest.raises(OSError, match='vgg19: its weights could not be fetched from https://.*let SR_FASTAI_FEATURES name the folder'): ConvFeatures('vgg19', ['conv1_1'])

def test_a_download_of_other_bytes_is_refused(monkeypatch, tmp_path):
    "torchvision's hash is checked before anything is opened, and what is opened is no free pickle."
    import io
    class Response(io.BytesIO):
        headers = {}
        def info(self): return self
        def getheaders(self, _): return None
    monkeypatch.setattr('torch.hub.urlopen', lambda *args, **kwargs: Response(b'not those weights'))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.delenv(FOLDER, raising=False)
    with pytest.raises(OSError, match='alexnet.*invalid hash value'): ConvFeatures('alexnet', ['conv1'])
    assert not list(tmp_path.rglob('*.pth'))

def folder_of(tmp_path, **pictures):
    "A folder with these pictures, arrays by name."
    (tmp_path/'HR').mkdir()
    for k,a in pictures.items(): Image.fromarray(a).save(tmp_path/'HR'/f'{k}.png')
    return tmp_path/'HR'

def picture(shape, seed=0):
    "A smooth random picture."
    from sr_fastai.resample import resize
    a = np.random.default_rng(seed).integers(0, 256, (7,8,*shape[2:]), np.uint8)
    return resize(a, shape[:2])

def bench(capsys, *args):
    "Exit code, output and errors of `sr_bench quality`."
    from sr_fastai.quality import sr_bench
    code = sr_bench(['quality', *map(str, args)])
    return code, *capsys.readouterr()

@needs_data
@pytest.mark.parametrize('scale,set5,set14', [(2, 33.67, 30.23), (3, 30.40, 27.54), (4, 28.43, 25.99)])
def test_bicubic_has_the_papers_figures(scale, set5, set14, capsys):
    "With LR as given, too; 'bridge' of Set14 is grey and scored on its own values."
    for name,want in dict(Set5=set5, Set14=set14).items():
        code,out,_ = bench(capsys, data/name/'HR', '--lr', data/name/f'LR_x{scale}', '-s', scale, '-m', 'bicubic', '--measures', 'psnr', '--json', '-')
        row, = json.loads(out)
        assert code==0 and abs(row['mean']['psnr']-want)<.006, f'{name} x{scale}'

def test_grey_on_its_own_values(tmp_path, capsys):
    "A grey original is compared as grey, not through Y of BT.601, which squeezes 0..255 to 16..235."
    from sr_fastai.resample import bicubic_down, bicubic_up
    hr = picture((24,32))
    code,out,_ = bench(capsys, folder_of(tmp_path, grey=hr), '-m', 'bicubic', '--measures', 'psnr', '--json', '-')
    err = bicubic_up(bicubic_down(hr, 2), 2).astype(float)-hr
    assert code==0 and abs(json.loads(out)[0]['mean']['psnr']-10*np.log10(255**2/np.square(err[2:-2,2:-2]).mean()))<1e-3

@pytest.mark.parametrize('option', ['ensemble','consistent'])
def test_options_of_upscale(option, tmp_path, capsys):
    "What is measured is what `upscale` makes with the same option."
    from sr_fastai import upscale
    from sr_fastai.metrics import psnr
    from sr_fastai.resample import bicubic_down
    hr = np.random.default_rng(0).integers(0, 256, (48,64,3), np.uint8)
    lr,hrs = bicubic_down(hr, 2),folder_of(tmp_path, noise=hr)
    def x(a): return torch.from_numpy(a).permute(2,0,1)[None]/255
    def measured(*args): return json.loads(bench(capsys, hrs, '-m', 'lite', '--measures', 'psnr', '--precision', 'fp32', '--json', '-', *args)[1])[-1]['mean']['psnr']
    want = psnr(x(upscale(lr, model='lite', precision='fp32', **{option:True})), x(hr), border=2).item()
    got = measured(f'--{option}')
    assert got==pytest.approx(want, abs=1e-4)
    assert got!=pytest.approx(measured(), abs=1e-3)

def test_odd_sizes_grey_and_colour_side_by_side(tmp_path, capsys):
    "Originals that the scale does not divide, of one and of three channels: cut at the right and below, in the table and in the picture."
    hr = folder_of(tmp_path, a=picture((25,31,3)), b=picture((40,45)))
    code,out,err = bench(capsys, hr, '-s', 4, '-m', 'bicubic', '--measures', 'psnr,ssim_rgb', '--per-image', '--pictures', tmp_path/'side.png', '--crop', 20)
    assert (code, err)==(0, '')
    assert 'a.png' in out and 'b.png' in out and 'mean of 2' in out
    with Image.open(tmp_path/'side.png') as im: assert im.size==(3*(40+8)-8, 2*(40+42))

def test_auto_is_what_upscale_takes_for_such_files(tmp_path, capsys):
    "It was base on JPEG too, since LR is measured as pixels."
    hr = folder_of(tmp_path, a=picture((64,64,3)))
    (tmp_path/'LR').mkdir()
    Image.fromarray(picture((32,32,3))).save(tmp_path/'LR'/'a.jpg', quality=60)
    for kw,same in ((['--jpeg',60],'photo'), (['--lr',tmp_path/'LR'],'photo'), (['--jpeg',95],'base'), ([],'base')):
        code,out,_ = bench(capsys, hr, '-m', 'auto', '-m', 'base', '-m', 'photo', '--measures', 'psnr', '--json', '-', *kw)
        got = {r['model']:r['mean']['psnr'] for r in json.loads(out)}
        assert code==0 and got['auto']==got[same] and got['base']!=got['photo']

def test_folders_are_told_apart(tmp_path, capsys):
    for d in ('a','p/a'):
        (tmp_path/d).mkdir(parents=True)
        folder_of(tmp_path/d, a=picture((24,32)))
    def titles(*folders): return [o['folder'] for o in json.loads(bench(capsys, *(tmp_path/o for o in folders), '-m', 'bicubic', '--measures', 'psnr', '--json', '-')[1])]
    assert titles('p/a/HR')==['a/HR']
    assert titles('a/HR','p/a/HR')==[f'{tmp_path.name}/a/HR','p/a/HR']

def test_jpeg_makes_it_worse(tmp_path, capsys):
    hr = folder_of(tmp_path, a=picture((64,64,3)))
    psnr = [json.loads(bench(capsys, hr, '-m', 'bicubic', '--measures', 'psnr', '--json', '-', *o)[1])[0]['mean']['psnr'] for o in ((), ('--jpeg',75), ('--jpeg',20))]
    assert psnr[0]>psnr[1]>psnr[2]

@pytest.mark.parametrize('args,says', [
    (['nowhere'], 'nowhere: no such folder'),
    (['HR','-m','nonsense'], "no weights are called 'nonsense'"),
    (['HR','--measures','fid'], "'fid' is no measure"),
    (['HR','--features','none.safetensors'], 'none.safetensors: no such file'),
    (['HR','--lr','HR'], 'not 1/2 of'),
    (['HR','--jpeg','0'], 'quality from 1 to 95'),
    (['HR','-s','1'], 'scale must be 2 or more'),
    (['HR','-s','16'], 'too small'),
    (['HR','--json','no/figures.json'], "no is no folder"),
    (['HR','--pictures','side.xyz'], "no format is called '.xyz'"),
    (['HR','--pictures','side.psd'], "no format is called '.psd'"), # Pillow reads it, and does not write it
    (['HR','--pictures','side.webp','--crop','9000'], 'a WEBP holds 16383'),
    (['broken'], 'cannot be read as an image')])
def test_bad_input_is_one_sentence(args, says, tmp_path, monkeypatch, capsys):
    folder_of(tmp_path, a=picture((24,24,3)))
    (tmp_path/'broken').mkdir()
    (tmp_path/'broken'/'a.png').write_bytes(b'no picture')
    monkeypatch.chdir(tmp_path)
    code,out,err = bench(capsys, *args, *([] if {'--measures','--features'} & set(args) else ['--measures','psnr']))
    assert (code, out)==(2, '') and says in err and err.count('\n')==1, err
    assert not [o for o in tmp_path.iterdir() if o.is_file()]

def test_without_alexnet_the_rest_is_measured(tmp_path, monkeypatch, capsys):
    def no_network(*args, **kwargs): raise OSError('no network')
    monkeypatch.setattr('torch.hub.urlopen', no_network)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.delenv(FOLDER, raising=False)
    hr = folder_of(tmp_path, a=picture((24,24,3)))
    code,out,err = bench(capsys, hr, '-m', 'bicubic')
    assert code==0 and out.startswith('folder') and 'ssim' in out and 'lpips' not in out and 'sr_bench: without LPIPS: alexnet' in err
    code,out,err = bench(capsys, hr, '-m', 'bicubic', '--measures', 'lpips')
    assert (code, out)==(2, '') and 'could not be fetched' in err

@needs_features
def test_lpips_in_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(FOLDER, str(real))
    hr = folder_of(tmp_path, a=picture((64,64,3)), b=picture((64,80)))
    code,out,err = bench(capsys, hr, '-m', 'bicubic', '--json', tmp_path/'figures.json')
    row, = json.loads((tmp_path/'figures.json').read_text())
    assert (code, err)==(0, '') and list(row['mean'])==['psnr','ssim','lpips'] and 0<row['mean']['lpips']<1

@pytest.mark.parametrize('found,want', [([math.inf,30.],30.), ([20.,30.],25.), ([math.inf]*2,None)])
def test_whole_images_whose_measure_is_infinite_do_not_count(found, want, monkeypatch):
    "PSNR is, where a black image is hit exactly; one of them would hide what all others do."
    from fastai.vision.all import Learner
    from sr_fastai import whole
    from sr_fastai.data import div2k_dataloaders
    from sr_fastai.div2k import untar_div2k
    from sr_fastai.losses import PixelLoss
    from sr_fastai.models import Generator
    values = iter(found)
    monkeypatch.setattr(whole, 'scores', lambda *a: dict(psnr=next(values)))
    learn = Learner(div2k_dataloaders(untar_div2k(sample=True), size=16, bs=4, crops=1), Generator(width=4, depth=1), PixelLoss(), metrics=whole.whole_image_metrics(['psnr'], n=2))
    with learn.no_bar(), learn.no_logging(): assert learn.validate()[1]==want
