"What an import may cost: upscaling needs neither fastai nor what it pulls in."
import os, subprocess, sys
import pytest

HEAVY = 'fastai','pandas','matplotlib','spacy','sklearn','IPython','wandb','torchvision','tifffile','imagecodecs'

def modules(code):
    "The modules loaded after `code` has run in a fresh process."
    r = subprocess.run([sys.executable, '-c', f"{code}\nimport sys; print('\\n'.join(sys.modules))"], capture_output=True, text=True, timeout=120, check=True)
    return set(r.stdout.split())

def test_import_is_light():
    ms = modules('import sr_fastai')
    assert not ms & {*HEAVY, 'torch', 'numpy', 'PIL'}

def test_upscale_needs_no_fastai():
    ms = modules("""
import numpy as np, sr_fastai
from sr_fastai.models import Generator
sr_fastai.upscale(np.zeros((8,8,3), np.uint8), model=Generator(width=4, depth=1))""")
    assert 'sr_fastai.engine' in ms and not ms & set(HEAVY)

@pytest.mark.parametrize('room', ['ops','models','files','weights','imageio','resample','engine','quality','cli'])
def test_rooms_of_inference_are_light(room): assert not modules(f'import sr_fastai.{room}') & set(HEAVY)

@pytest.mark.parametrize('name', ['sr_data','sr_sweep','sr_train'])
def test_a_command_says_nothing_of_fastai_s_import(name):
    r = subprocess.run([sys.executable, '-c', f"from sr_fastai.cli import _{name} as run; run(['--help'])"], capture_output=True, text=True, timeout=120)
    assert (r.returncode, r.stderr)==(0, ''), r.stderr

def test_only_upscale_is_lazy():
    import sr_fastai
    assert callable(sr_fastai.upscale)
    with pytest.raises(AttributeError, match='nonsense'): sr_fastai.nonsense

def test_upscale_starts_no_compiler(tmp_path):
    "With an empty cache `upscale` runs at once, on plain torch, and says nothing; a direct call of the operator would build."
    code = '''
import os, sys, numpy as np, sr_fastai
from sr_fastai.models import Generator
sr_fastai.upscale(np.zeros((8,8,3), np.uint8), model=Generator(width=4, depth=1))
assert not [f for _,_,fs in os.walk(os.environ['XDG_CACHE_HOME']) for f in fs if f.endswith('.so')]
assert 'torch._dynamo' not in sys.modules # 1.5 s of start-up
'''
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env={**os.environ, 'XDG_CACHE_HOME':str(tmp_path)})
    assert (r.returncode, r.stderr)==(0, ''), r.stderr
