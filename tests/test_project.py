"The project's own promises: notebooks, library and README in step, one direction of import, a recipe that survives being killed."
import ast, json, os, re, subprocess, sys, time
from pathlib import Path
import pytest
from safetensors.torch import load_file

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

def test_recipe_goes_on_after_a_kill_as_if_never_killed(tmp_path):
    hr = root/'sr_fastai'/'assets'/'sample'/'DIV2K_train_HR'
    def start(out): return subprocess.Popen([sys.executable, 'recipes/pretrain.py', hr, hr.with_name('DIV2K_valid_HR'), '--out', tmp_path/out, '--width', '8', '--depth', '1',
                                             '--batches', '40', '--every', '10', '--bs', '2', '--patch', '16', '--warmup', '5'], cwd=root, env={**os.environ, 'OMP_NUM_THREADS':'1'})
    assert start('whole').wait()==0
    killed = start('killed')
    deadline = time.time()+120
    while not (tmp_path/'killed'/'log.jsonl').exists() and killed.poll() is None and time.time()<deadline: time.sleep(.01)
    killed.kill()
    assert killed.wait()!=0, 'it ended before it could be killed'
    assert not (tmp_path/'killed'/'weights.safetensors').exists()
    assert start('killed').wait()==0
    a,b = (load_file(tmp_path/o/'weights.safetensors') for o in ('whole','killed'))
    assert all((a[k]==b[k]).all() for k in a)
