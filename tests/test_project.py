"The project's own promises: notebooks, library and README in step, one direction of import, recipes that train."
import ast, json, re, runpy, subprocess, sys
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from sr_fastai import upscale
from sr_fastai.div2k import div2k_hr, div2k_lr, div2k_splitter
from sr_fastai.imageio import read_uint8
from sr_fastai.models import Generator
from sr_fastai.resample import bicubic_down
from sr_fastai.train import TrainConfig, train
from sr_fastai.weights import WeightsError, is_file_name, load_weights, read_card, registry, save_weights

root = Path(__file__).parent.parent
notebooks = sorted(p for p in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)

def python(*args, **kwargs): return subprocess.run([sys.executable, *map(str, args)], cwd=root, capture_output=True, text=True, **kwargs)

def test_readme_is_made_from_the_index_notebook():
    res = python('tools/readme.py', '--check')
    assert res.returncode==0, res.stderr

@pytest.mark.parametrize('name', ['try','test'])
def test_readme_has_the_command(name):
    res = python('tools/readme_command.py', name)
    assert res.returncode==0 and '.venv' in res.stdout, res.stderr

@pytest.mark.parametrize('nb', notebooks, ids=lambda p: p.stem)
def test_notebook_is_light_and_names_no_machine(nb):
    assert nb.stat().st_size < 600_000
    for cell in json.loads(nb.read_text(encoding='utf-8'))['cells']:
        for out in cell.get('outputs', []):
            text = json.dumps({k:v for k,v in out.get('data', {}).items() if not k.startswith('image/')}) + str(out.get('text', ''))
            assert not re.search(r'/(root|home|tmp|opt)/|site-packages', text), text[:300]
            assert out.get('name')!='stderr' and out['output_type']!='error', text[:300]

def modules():
    "The rooms in the order of their notebooks."
    order = []
    for nb in sorted((root/'nbs').glob('[0-9]*.ipynb')):
        code = '\n'.join(''.join(c['source']) for c in json.loads(nb.read_text(encoding='utf-8'))['cells'])
        order.append(re.search(r'^#\| default_exp (\w+)', code, re.M)[1])
    return order

def test_a_module_imports_only_from_those_above_it():
    order = modules()
    assert {'ops','models','learner'} <= set(order)
    for i,name in enumerate(order):
        for node in ast.walk(ast.parse((root/'sr_fastai'/f'{name}.py').read_text(encoding='utf-8'))):
            if not isinstance(node, ast.ImportFrom): continue
            full = ('sr_fastai.' if node.level else '') + (node.module or '')
            if not full.startswith('sr_fastai.'): continue
            used = full.split('.')[1]
            assert used==name or order.index(used) < i, f'{name} imports {used}, which stands below it'

def test_star_import_is_ours_last():
    res = python('-W', 'ignore', '-c', 'from sr_fastai.all import *; import sr_fastai.models as m; assert Generator is m.Generator; untar_div2k, div2k_dataloaders, gan_learner, upscale, DataBlock, Learner')
    assert res.returncode==0, res.stderr

recipes = sorted(p for p in (root/'recipes').glob('*_x?*.yaml'))

@pytest.mark.parametrize('recipe', recipes, ids=lambda p: p.stem)
def test_a_recipe_trains_what_it_is_named_after(recipe, tmp_path, monkeypatch):
    "In little: the same nets, data and losses, but for LPIPS' network and what is measured on whole images."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('WANDB_MODE', 'disabled')
    whole = TrainConfig.from_yaml(recipe)
    scale = whole.scale
    assert f'_x{scale}' in recipe.stem
    if whole.whole: assert whole.monitor in [f'whole_{o}' for o in whole.whole.split(',')]
    for f in {o for o in (whole.init, *(whole.pretrain_teacher or '').split(',')) if o and is_file_name(o)}: # what recipes before it made
        Path(f).parent.mkdir(parents=True)
        save_weights(load_weights('base', scale), f)
    # weights that come later are trained from those that are there
    known = [o['scale'] for o in registry() if o['name']==whole.init]
    init_scale = None if whole.init is None or is_file_name(whole.init) or (whole.init_scale or scale) in known else known[0]
    c = TrainConfig.from_yaml(recipe, data='sample', size=16, bs=2, crops=1, pretrain=min(whole.pretrain, 1), epochs=min(whole.epochs, 1), critic_width=4, percep=None, pretrain_percep=0, whole=None, monitor='psnr', workers=0,
                              project=None, **(dict(init_scale=init_scale) if init_scale else {}))
    train(c)
    net = load_weights(tmp_path/'runs'/recipe.stem/'weights.safetensors', scale)
    if whole.init is None: return
    start = load_weights(whole.init, init_scale or whole.init_scale or scale)
    assert (net.width,net.depth)==(start.width,start.depth)
    if whole.epochs: assert not torch.equal(load_weights(tmp_path/'runs'/recipe.stem/'weights.safetensors', scale, strength=0).last.weight, net.last.weight)

def test_recipes_that_are_named_are_there():
    "In what is said of them, and by those that go on from one another."
    for f in (root/'recipes').iterdir():
        if f.suffix in ('.md','.yaml','.py'): assert set(re.findall(r'\b\w+_x\d\w*\.yaml', f.read_text(encoding='utf-8'))) <= {p.name for p in recipes}, f

def test_shortened_by_the_blocks_that_are_missed_least(tmp_path):
    torch.manual_seed(0)
    net = Generator(width=8, depth=4).eval()
    for p in net.parameters(): torch.nn.init.normal_(p, std=.1)
    torch.nn.init.zeros_(net.blocks[2].conv2.weight) # adds the same everywhere
    x = np.random.default_rng(0).integers(0, 256, (20,20,3), np.uint8)
    shorten = runpy.run_path(str(root/'recipes'/'shorten.py'))
    means = shorten['added_means'](net, [x])
    same,other = (np.abs(upscale(x, 2, shorten['without'](net, i, means[i]), precision='fp32').astype(int)-upscale(x, 2, net, precision='fp32')).max() for i in (2,3))
    assert same<=1<other # the mean was taken in half precision
    save_weights(net, tmp_path/'a.safetensors')
    res = python('recipes/shorten.py', tmp_path/'a.safetensors', 2, 2, root/'sr_fastai'/'assets'/'sample'/'DIV2K_valid_HR', tmp_path/'b.safetensors')
    assert res.returncode==0 and '2 blocks' in res.stdout, res.stderr
    assert load_weights(tmp_path/'b.safetensors', 2).depth==2

def test_taught_pictures_are_the_mean_of_the_answers(tmp_path):
    sample = tmp_path/'photos'
    sample.mkdir()
    for f in sorted((root/'sr_fastai'/'assets'/'sample'/'DIV2K_valid_HR').iterdir())[:2]:
        with Image.open(f) as im: im.crop((0,0,160,128)).save(sample/f.name)
    res = python('recipes/teach.py', 'base,lite', 2, sample, sample, tmp_path/'taught')
    assert res.returncode==0, res.stderr
    lrs = div2k_lr(tmp_path/'taught', 2)
    train,valid = (lrs[i] for i in div2k_splitter(lrs))
    assert len(train)==len(valid)==len(list(sample.iterdir()))
    lr = read_uint8(train[0])
    both = [upscale(lr, 2, name, ensemble=True, consistent=True).astype(int) for name in ('base','lite')]
    assert np.abs(sum(both)-2*read_uint8(div2k_hr(train[0])).astype(int)).max()<=2
    assert np.abs(bicubic_down(read_uint8(div2k_hr(train[0])), 2).astype(int)-lr).max()<=1
    res = python('recipes/teach.py', 'lite', 2, sample, sample, tmp_path/'taught')
    assert res.returncode and 'was begun with other weights' in res.stderr
    assert (lr==read_uint8(valid[0])).all() and (read_uint8(div2k_hr(valid[0]))==read_uint8(min(sample.iterdir()))).all()

def test_shipped_with_a_full_card_and_the_start_that_is_named(tmp_path):
    torch.manual_seed(0)
    own,first,other = (Generator(width=4, depth=1).eval() for _ in range(3))
    card = dict(command='sr_train mine.yaml', seed=3, commit='abc', data=dict(train=dict(images=2, fingerprint='f')))
    mine,asked = (save_weights(own, tmp_path/'mine.safetensors', card, start=first), save_weights(other, tmp_path/'other.safetensors', {}))
    mean = dict(folder='Set5/HR', jpeg=None, scale=2, pictures=['a.png'])
    (tmp_path/'figures.json').write_text(json.dumps([dict(mean, model='bicubic', mean=dict(psnr=30.)), dict(mean, model='mine', mean=dict(psnr=33.333))]))
    def ship(name, *args):
        res = python('recipes/ship.py', mine, name, tmp_path/'figures.json', '--folder', tmp_path/'w', '--purpose', 'clean pictures', '--data', 'two photographs', '--hours', .5, *args)
        assert res.returncode==0, res.stderr
    ship('kept')
    ship('alone', '--alone')
    ship('asked', '--start', asked)
    assert {o['name'] for o in registry(tmp_path/'w')}=={'kept','alone','asked'}
    for name,start in dict(kept=first, asked=other).items():
        for strength,net in {1.:own, 0.:start}.items(): torch.testing.assert_close(load_weights(name, 2, strength, tmp_path/'w').last.weight, net.last.weight, atol=1e-3, rtol=1e-3)
    with pytest.raises(WeightsError): load_weights('alone', 2, .5, tmp_path/'w')
    card = read_card('asked', 2, tmp_path/'w')
    assert (card['command'],card['seed'],card['commit'],card['hours'])==('sr_train mine.yaml',3,'abc',.5)
    assert card['hashes']['train']['images']==2 and card['data']=='two photographs'
    assert card['figures']=={'Set5/HR, 1 picture, x2':'33.33 dB (bicubic 30.00 dB)'}
