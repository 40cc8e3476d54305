"What a release promises: one version everywhere, requirements that are those used, a wheel with all that belongs to it and nothing else, a workflow that runs what .ci/run says."
import ast, configparser, importlib.metadata as md, re, shutil, subprocess, sys, tarfile, zipfile
from pathlib import Path
import pytest, yaml
import sr_fastai

root = Path(__file__).parent.parent
ini = configparser.ConfigParser(delimiters=['='])
ini.read(root/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
extras = [k for k in cfg if k.endswith('_requirements')]

def norm(name): return re.sub(r'[-_.]+', '-', name).lower()
def names(reqs): return {norm(re.match(r'[\w.-]+', r)[0]) for r in reqs}
def required(*keys): return names(r for k in keys for r in cfg[k].split())

# Distributions whose module has another name, and those that only come with another: `IPython` is there where a notebook is
dists = dict(PIL='pillow', yaml='pyyaml', plum='plum-dispatch', skimage='scikit-image')
brought = dict(matplotlib='fastai', torchvision='fastai', fastprogress='fastai', scipy='scikit-image', starlette='gradio', uvicorn='gradio', IPython='ipykernel', nbformat='nbclient')

def imported(*files):
    "Top-level modules that are imported anywhere in the files, functions included, but the standard library's, and their neighbours."
    res = set()
    for f in files:
        for n in ast.walk(ast.parse(f.read_text(encoding='utf-8'))):
            if isinstance(n, ast.Import): res |= {a.name.split('.')[0] for a in n.names}
            elif isinstance(n, ast.ImportFrom) and not n.level: res.add(n.module.split('.')[0])
            # pytest.importorskip('x'), import_module('x'), and our own `_needed('x', ...)`
            elif isinstance(n, ast.Call) and getattr(n.func, 'attr', getattr(n.func, 'id', '')) in ('importorskip','import_module','_needed'):
                res |= {a.value.split('.')[0] for a in n.args[:1] if isinstance(a, ast.Constant)}
    return res-set(sys.stdlib_module_names)-{'sr_fastai'}-{f.stem for f in files}

def unnamed(modules, named): return {m for m in modules if norm(dists.get(m, m)) not in named and brought.get(m) not in named}
library = sorted((root/'sr_fastai').glob('*.py'))

def test_one_version_everywhere():
    version = cfg['version']
    newest = re.search(r'^## \[(\d[^]]*)\] - (\d{4}-\d\d-\d\d)$', (root/'CHANGELOG.md').read_text(encoding='utf-8'), re.M)
    cite = yaml.safe_load((root/'CITATION.cff').read_text(encoding='utf-8'))
    assert {sr_fastai.__version__, newest[1], cite['version']}=={version}
    assert str(cite['date-released'])==newest[2]
    assert [a['name'] for a in cite['authors']]==[cfg['author']] and cite['repository-code']==cfg['git_url']

def test_what_is_imported_is_required():
    assert not unnamed(imported(*library), required('requirements', *extras))
    # what stands at a module's top must come with `pip install sr_fastai` alone; cluster, sweep, app and the like import theirs inside
    top = {}
    for f in library:
        for n in ast.parse(f.read_text(encoding='utf-8')).body:
            if isinstance(n, ast.Import): top |= {a.name.split('.')[0]:f.stem for a in n.names}
            elif isinstance(n, ast.ImportFrom) and not n.level: top[n.module.split('.')[0]] = f.stem
    assert not {(m,top[m]) for m in unnamed(set(top)-set(sys.stdlib_module_names)-{'sr_fastai'}, required('requirements'))}

def test_what_tests_and_tools_import_is_in_dev():
    files = [*(root/'tests').glob('*.py'), *(root/'tools').glob('*.py')]
    have = required('requirements', 'dev_requirements')
    missing = unnamed(imported(*files)-{'test_learner','kill_train'}, have)
    skips = {a.value.split('.')[0] for f in files for n in ast.walk(ast.parse(f.read_text(encoding='utf-8'))) if isinstance(n, ast.Call) and getattr(n.func, 'attr', '')=='importorskip' for a in n.args[:1]}
    assert not missing-skips

def test_what_is_required_is_used():
    # by strings: torch finds ninja and nvcc by their files, fastai.distributed imports accelerate
    text = '\n'.join(f.read_text(encoding='utf-8') for f in library)
    used = {norm(dists.get(m, m)) for m in imported(*library)} | {'accelerate' for _ in re.findall(r'fastai\.distributed', text)} | {'nvidia-cuda-nvcc' for _ in re.findall(r"'nvidia'", text)} \
        | {*re.findall(r"'(onnx\w*)'", text)}
    assert not required('requirements', *(k for k in extras if k!='dev_requirements'))-used

@pytest.mark.parametrize('module,by', brought.items())
def test_what_comes_with_another_does(module, by):
    try: reqs = md.requires(by)
    except md.PackageNotFoundError: pytest.skip(f'{by} is not installed')
    assert norm(module) in names(r for r in reqs if 'extra ==' not in r)

def test_each_requirement_has_a_lower_bound():
    # an extra's own bound is what `tools/stack.py oldest` tests
    for key in ('requirements','sweep_requirements'): assert not [r for r in cfg[key].split() if '>=' not in r]

@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "A wheel and an sdist of a copy of the tree, and the copy."
    tmp = tmp_path_factory.mktemp('release')
    src = tmp/'src'
    for o in ('sr_fastai','csrc'): shutil.copytree(root/o, src/o, ignore=shutil.ignore_patterns('__pycache__', '.*'))
    for o in root.iterdir():
        if o.is_file() and not o.name.startswith('.'): shutil.copy(o, src)
    (src/'sr_fastai'/'assets'/'__pycache__').mkdir()
    (src/'sr_fastai'/'assets'/'__pycache__'/'x.pyc').touch()
    (src/'tests').mkdir()
    (src/'tests'/'test_x.py').touch() # what setuptools would take
    files = {f.relative_to(src).as_posix() for d in ('sr_fastai','csrc') for f in (src/d).rglob('*') if f.is_file() and f.suffix!='.pyc'}
    res = subprocess.run([sys.executable, '-c', 'import sys; from setuptools import build_meta as b; d = sys.argv[1]; b.build_sdist(d); b.build_wheel(d)', tmp/'dist'], cwd=src, capture_output=True, text=True)
    assert res.returncode==0, res.stderr[-2000:]
    return tmp/'dist', files

def test_the_wheel_has_what_belongs_to_it_and_nothing_else(built):
    dist,files = built
    wheel, = dist.glob('*.whl')
    with zipfile.ZipFile(wheel) as z:
        got = {n for n in z.namelist() if '.dist-info/' not in n}
        meta = z.read(next(n for n in z.namelist() if n.endswith('METADATA'))).decode()
        info = [n for n in z.namelist() if '.dist-info/' in n]
    assert got=={f'sr_fastai/{f}' if f.startswith('csrc/') else f for f in files}
    assert 'sr_fastai/py.typed' in got
    # each licence in the tree stands where indexes and scanners look
    assert {n.split('/licenses/')[1] for n in info if '/licenses/' in n}=={f for f in files if Path(f).name.startswith('LICENSE')}|{'LICENSE'}
    assert 'License-Expression: Apache-2.0 AND BSD-2-Clause AND CC0-1.0\n' in meta
    assert wheel.stat().st_size < 60e6
    # the index shows the README without the repository beside it
    assert not re.findall(r'\]\((?![a-z]+:|#)[^)]*\)', meta)
    for v in cfg['python_versions'].split(): assert f'Classifier: Programming Language :: Python :: {v}\n' in meta

def test_the_sdist_is_what_the_wheel_is_built_from(built):
    dist,files = built
    sdist, = dist.glob('*.tar.gz')
    with tarfile.open(sdist) as t: got = {o.name.split('/', 1)[1] for o in t if o.isfile()}
    ours = {f for f in got if not f.startswith('sr_fastai.egg-info/')}-{'PKG-INFO','setup.cfg'}
    assert ours=={*files, *'CHANGELOG.md LICENSE MANIFEST.in README.md pyproject.toml settings.ini setup.py'.split()}

def test_twine_takes_both(built):
    pytest.importorskip('twine')
    res = subprocess.run([sys.executable, '-m', 'twine', 'check', '--strict', *built[0].iterdir()], capture_output=True, text=True)
    assert res.returncode==0, res.stdout+res.stderr

def test_workflow_runs_ci_on_the_pythons_that_we_name():
    flow = yaml.safe_load((root/'.github'/'workflows'/'test.yml').read_text(encoding='utf-8'))
    job = flow['jobs']['test']
    named = cfg['python_versions'].split() # it may run on one more, before we promise that
    assert {*named} <= {*job['strategy']['matrix']['python']} and named[0]==cfg['min_python']
    assert any(s.get('run')=='.ci/run' for s in job['steps'])
    for s in (s['run'] for j in flow['jobs'].values() for s in j['steps'] if 'run' in s):
        assert all((root/f).exists() for f in re.findall(r'(?:tools|\.ci)/[\w.]+', s))

def test_issue_forms_are_what_github_takes():
    forms = [f for f in (root/'.github'/'ISSUE_TEMPLATE').glob('*.yml') if f.name!='config.yml']
    assert len(forms)==3
    for f in forms:
        form = yaml.safe_load(f.read_text(encoding='utf-8'))
        assert {'name','description','body'} <= set(form) and form['body']
        ids = [b['id'] for b in form['body']]
        assert len(ids)==len(set(ids))
        for b in form['body']: assert b['type'] in ('textarea','input') and b['attributes']['label'] and set(b) <= {'type','id','attributes','validations'}
