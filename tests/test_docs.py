"""The documentation: links, anchors, pictures and the sidebar by `tools/check_docs.py`, and every code block of Markdown.

Blocks of Python are run as they stand, but with smaller nets, crops and batches under the same names, and one epoch; those in `read_only` are only compiled, their names looked up and their calls matched with signatures.
Every command of a `sh` block, and of code within a line, is parsed by the program that it calls: ours, torchrun's, accelerate's, Ray's, W&B's. Commands in `as_written` and `in_little` are run as well.
The README's two commands marked `# try` and `# test` are run by CI."""
import ast, builtins, configparser, importlib, importlib.util, inspect, re, runpy, shlex, shutil, subprocess, sys
from argparse import ArgumentParser
from pathlib import Path
import numpy as np, pytest
from PIL import Image

root = Path(__file__).parent.parent
ini = configparser.ConfigParser(delimiters=['='])
ini.read(root/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
spec = importlib.util.spec_from_file_location('check_docs', root/'tools'/'check_docs.py')
docs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(docs)

pages = [p for p in docs.doc_files(root) if p.name!='index.ipynb'] # README is made from it
found = [(p,lang,text) for p in pages for lang,text in docs.blocks(p)]

# -- pages

def test_pages_are_sound(): assert docs.problems()==[]

@pytest.fixture
def tree(tmp_path):
    "A copy of all that the check reads."
    d = tmp_path/'repo'
    skip = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', 'sample', '*.safetensors')
    for o in ('nbs','sr_fastai','csrc','recipes','benchmarks','tests','tools'): shutil.copytree(root/o, d/o, ignore=skip)
    for f in (*root.glob('*.md'), *root.glob('*.ini'), *root.glob('*.cff'), root/'LICENSE'): shutil.copy(f, d)
    return d

def change(path, old, new):
    text = path.read_text(encoding='utf-8')
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding='utf-8')

def test_what_is_broken_is_found(tree):
    "One fault of each kind, on top of each other."
    seen = docs.problems(tree)
    def new(says):
        now = docs.problems(tree)
        more = [o for o in now if o not in seen]
        assert any(says in o for o in more), (says,more)
        seen[:] = now
    change(tree/'README.md', '](CONTRIBUTING.md)', '](CONTRIBUTE.md)')
    new('README.md: CONTRIBUTE.md is not there')
    change(tree/'nbs'/'tutorials'/'upscale.ipynb', '../index.ipynb#models', '../index.ipynb#model-zoo')
    new('index.ipynb has no heading of that name')
    change(tree/'nbs'/'index.ipynb', '(images/otter.png)', '(images/beaver.png)')
    new('images/beaver.png is not there')
    change(tree/'CONTRIBUTING.md', '`settings.ini`', '`sr_fastai.engine.upscal()`')
    new('there is no sr_fastai.engine.upscal()')
    change(tree/'nbs'/'howto'/'onnx.ipynb', '> One file', 'One file')
    new('onnx.ipynb: a page begins with')
    change(tree/'nbs'/'howto'/'cluster.ipynb', '```sh', '```')
    new('cluster.ipynb: a code block is in no language')
    change(tree/'nbs'/'index.ipynb', 'howto/colab.ipynb', 'howto/onnx.ipynb')
    new('nothing leads to howto/colab.ipynb')
    shutil.copy(tree/'nbs'/'howto'/'onnx.ipynb', tree/'nbs'/'howto'/'more.ipynb')
    new('sidebar.yml does not list')
    change(tree/'nbs'/'_quarto.yml', 'styles.css', 'style.css')
    new('style.css is not there')

def test_links_in_code_are_none():
    assert set(docs.links('see [a](b.md "title"), ![p](c.png), [![badge](d.svg)](e.md)\n\n`[no](f.md)`\n\n```sh\n[no](g.md)\n```\n[ref]: h.md'))=={'b.md','c.png','d.svg','e.md','h.md'}

# -- commands

class Parsed(Exception): pass

@pytest.fixture
def no_more_than_parsing(monkeypatch):
    "What comes after the parsing of arguments is not done."
    def only(parse):
        def f(self, *args, **kwargs):
            got = parse(self, *args, **kwargs)
            if self.prog=='sr_train': return got # `config_of_args` looks at the values then, and trains nothing
            raise Parsed(got)
        return f
    def refused(*args, **kwargs): raise AssertionError('a program was about to be run')
    for k in ('parse_args','parse_intermixed_args'): monkeypatch.setattr(ArgumentParser, k, only(getattr(ArgumentParser, k)))
    monkeypatch.setattr(subprocess.Popen, '__init__', refused)
    monkeypatch.setattr(sys, 'argv', sys.argv)
    monkeypatch.chdir(root) # for recipes and tools

def entry(name):
    "The function that an installed command calls."
    module,f = dict(o.split('=') for o in cfg['console_scripts'].split())[name].split(':')
    return getattr(importlib.import_module(module), f)

def ours(name, args):
    if name!='sr_train': return entry(name)(args)
    from sr_fastai.train import config_of_args
    config_of_args(args)
    raise Parsed

def launcher(script): # of `torchrun`
    if script!='$(which sr_train)': assert script=='train.py', f'what is {script}?'

def torchrun(name, args):
    from torch.distributed.run import parse_args
    try: parse_args(args)
    except Parsed as e: a = e.args[0]
    launcher(a.training_script)
    if 'sr_train' in a.training_script: ours('sr_train', a.training_script_args)
    raise Parsed

def accelerate(name, args):
    from accelerate.commands.launch import launch_command_parser
    assert args[0]=='launch'
    launch_command_parser().parse_args(args[1:])

def clicked(name, args):
    "Ray's and W&B's commands are click's: their options are looked up, their files are not."
    cmd = importlib.import_module(dict(ray='ray.scripts.scripts', wandb='wandb.cli.cli')[name]).cli
    while hasattr(cmd, 'commands'):
        assert args[0] in cmd.commands, f'{name} has no {args[0]}'
        cmd,args = cmd.commands[args[0]],args[1:]
    cmd.make_parser(cmd.context_class(cmd)).parse_args(list(args))
    raise Parsed

def pip(name, args):
    assert args[0]=='install'
    what, = [o for o in args[1:] if o not in ('-q','-e')]
    m = re.fullmatch(r'(?:sr_fastai|\.)(?:\[(\w+)\])?(?: @ git\+(.*))?', what)
    assert m, f'what is {what}?'
    assert not m[1] or f'{m[1]}_requirements' in cfg, f'there is no extra {m[1]}'
    assert m[2] in (None,cfg['git_url'])
    raise Parsed

def python(name, args):
    if args[0]=='-m' and args[1]=='venv': raise Parsed
    if args[0]=='-m':
        main = importlib.import_module(args[1]).main
        return main(args[2:])
    if args[0]=='train.py': raise Parsed # a script of the reader's
    sys.argv = args
    if re.search('parse_(intermixed_)?args|call_parse', (root/args[0]).read_text(encoding='utf-8')): return runpy.run_path(args[0], run_name='__main__')
    assert not args[1:], f'{args[0]} has no options'
    raise Parsed

def marked(name, args):
    "`pytest` and `nbdev_test` with marks that there are."
    from fastcore.script import anno_parser
    if name=='nbdev_test':
        from nbdev.test import nbdev_test
        anno_parser(nbdev_test).parse_args(args)
    assert args[0]=='-m' and len(args)==2 and re.search(rf'^    {args[1]}:', (root/'pytest.ini').read_text(), re.M)
    raise Parsed

def apt(name, args):
    assert args==['apt-get','install','g++']
    raise Parsed

def sourced(name, args):
    assert args==['.venv/bin/activate']
    raise Parsed

programs = {**{o.split('=')[0]:ours for o in cfg['console_scripts'].split()}, 'torchrun':torchrun, 'accelerate':accelerate, 'ray':clicked, 'wandb':clicked, 'pip':pip,
            'python':python, 'python3':python, 'pytest':marked, 'nbdev_test':marked, 'sudo':apt, '.':sourced}

def commands(text):
    "The commands of a shell block: (variables, program, arguments)."
    res = []
    for line in text.replace('\\\n', ' ').splitlines():
        lex = shlex.shlex(line, posix=True, punctuation_chars=True)
        lex.whitespace_split = True
        words,cmd = [*lex,'&&'],[]
        for w in words:
            if set(w)<=set('&|;'):
                env = dict(o.split('=', 1) for o in cmd if re.match(r'[A-Z_]+=', o))
                cmd = [o for o in cmd if not re.match(r'[A-Z_]+=', o)]
                if cmd: res.append((env, Path(cmd[0]).name or '.', cmd[1:]))
                cmd = []
            else: cmd.append(w)
    return res

def shell_of(lang, text):
    "Of Python, the lines that Jupyter gives to a shell."
    return text if lang=='sh' else '\n'.join(re.findall(r'^!(.*)', text, re.M)) if lang=='python' else ''

inline = [(p,m[1]) for p in pages for m in re.finditer(r'(?<!`)`((?:[A-Z_]+=\S+ )?(?:%s)\s[^`]+)`(?!`)' % '|'.join(o for o in programs if o!='.'), docs._fence.sub('', docs.text_of(p)))]
lines = {} # command to the pages that have it; where a command is only spoken of, X stands for what it wants
for p,text in [(p,shell_of(lang, text)) for p,lang,text in found] + inline:
    for env,name,args in commands(text + ' X'*(text in ('sr_bench quality','sr_data check'))): lines.setdefault((tuple(env.items()),name,*args), []).append(p.name)
assert {name for _,name,*_ in lines} >= {'sr_upscale','sr_train','sr_sweep','sr_bench','sr_data','torchrun','ray','wandb','pip','python'}

@pytest.mark.parametrize('env,name,args', [(dict(k[0]),k[1],[*k[2:]]) for k in lines], ids=[f"{lines[k][0]}: {' '.join(k[1:])}" for k in lines])
def test_command_is_one_that_its_program_takes(env, name, args, no_more_than_parsing):
    assert name in programs, f'how is {name} checked?'
    for k in env: assert k in ('SR_FASTAI_OPS','WANDB_MODE')
    if args==['--help']: return entry(name) and None
    with pytest.raises(Parsed): programs[name](name, args)

@pytest.mark.parametrize('line', ['sr_upscale photo.png --outt x','sr_train --data photos/ --epoch 3','sr_train --adv wgan','sr_sweep a.yaml --job 4 5','sr_bench quality','sr_data chek photos/','torchrun --nproc 4 "$(which sr_train)" --widht 3',
    'ray start --heads','wandb swep a.yaml','pip install "sr_fastai[gpu]"','python tools/prepare.py --hook=3','python -m sr_fastai.ops biuld','python benchmarks/bench_upscale.py --folder x','accelerate launch --gpus train.py','pytest -m fast'])
def test_wrong_commands_are_refused(line, no_more_than_parsing, capsys):
    (_,name,args), = commands(line)
    with pytest.raises((SystemExit,Exception)) as e: programs[name](name, args)
    assert not isinstance(e.value, Parsed) and 'about to be run' not in str(e.value)

as_written = ('sr_upscale photos/ --out large/ --recursive','sr_upscale photo.png --model base_x2.onnx','sr_upscale sr_fastai/assets/otters.png --out otters_x2.png --reference sr_fastai/assets/otters_original.webp',
    'sr_data check photos/ --size 48','sr_data get --sample','sr_data cache','python -m sr_fastai.ops','sr_bench quality others/ --model base --model runs/mine/weights.safetensors --pictures compare.png','sr_bench quality Set5/HR --model mine.safetensors --pictures compare.png')
in_little = {'sr_train':'--size 16 --bs 2 --crops 1 --width 8 --depth 1 --critic_width 4 --critic_depth 2 --percep none --whole psnr --monitor whole_psnr', 'sr_sweep':'--check'}

@pytest.fixture(scope='module')
def desk(tmp_path_factory):
    "A folder with the files and folders that the commands name."
    from sr_fastai.onnx_model import export_onnx
    from sr_fastai.models import Generator
    from sr_fastai.weights import save_weights
    d = tmp_path_factory.mktemp('desk')
    sample = sorted((root/'sr_fastai'/'assets'/'sample').glob('DIV2K_*_HR/*.png'))
    for o in ('photos','others','Set5/HR','pages','faces'):
        (d/o).mkdir(parents=True)
        for f in sample[:4]: Image.open(f).crop((0,0,120,112)).save(d/o/f.name)
    (d/'sr_fastai').symlink_to(root/'sr_fastai')
    (d/'recipes').symlink_to(root/'recipes')
    (d/'runs'/'mine').mkdir(parents=True)
    for f in ('mine.safetensors','runs/mine/weights.safetensors'): save_weights(Generator(width=4, depth=1), d/f)
    Image.open(sample[0]).crop((0,0,60,48)).save(d/'photo.png')
    export_onnx(d/'mine.safetensors', d/'base_x2.onnx', scale=2)
    return d

@pytest.fixture
def at_desk(desk, monkeypatch):
    monkeypatch.chdir(desk)
    monkeypatch.setenv('SR_FASTAI_FEATURES', str(desk)) # no weights in it: nothing is downloaded
    monkeypatch.setenv('WANDB_MODE', 'disabled')
    return desk

@pytest.mark.parametrize('line', as_written, ids=lambda o: o[:60])
def test_command_is_run(line, at_desk, capsys):
    (_,name,args), = commands(line)
    assert ((),name,*args) in lines, f'no page says this any more: {line}'
    got = ours(name, args) if name.startswith('sr_') else python(name, args)
    assert not got, capsys.readouterr().err
    out = capsys.readouterr().out
    assert out
    if '--reference' in line: # the README says these figures
        m = re.search(r'PSNR ([\d.]+) dB, SSIM ([\d.]+); bicubic: PSNR ([\d.]+) dB, SSIM ([\d.]+)', out)
        said = re.search(r'PSNR (\d+\.\d+) dB and SSIM (\d\.\d+), where bicubic enlargement has (\d+\.\d+) dB and (\d\.\d+)', (root/'README.md').read_text(encoding='utf-8'))
        assert np.allclose([float(o) for o in m.groups()], [float(o) for o in said.groups()], atol=.011)

@pytest.mark.slow
@pytest.mark.parametrize('line', [shlex.join(k[1:]) for k in lines if k[1] in in_little and '--data' in k or k[1]=='sr_sweep' and len(k)==3])
def test_training_command_is_run_in_little(line, at_desk):
    (_,name,args), = commands(line)
    if name=='sr_sweep' and not (at_desk/args[0]).exists(): args = ['recipes/sweep.yaml']
    little = in_little[name].split()
    if name=='sr_train':
        less = [(k,min(int(v),1)) for k,v in zip(args, args[1:]) if k in ('--epochs','--pretrain')]
        little += ['--out',f'runs/{abs(hash(line))}', *(str(o) for kv in {**dict(epochs=1), **{k[2:]:v for k,v in less}}.items() for o in (f'--{kv[0]}',kv[1]))]
    assert entry(name)([*args,*little])==0

# -- Python

# what needs a network, an account or another machine
read_only = ('vgg19(weights=','wandb.sweep(','google.colab')
python_blocks = [(p,re.sub(r'^!.*', 'pass', text, flags=re.M)) for p,lang,text in found if lang=='python']
def is_read_only(text): return any(o in text for o in read_only)
def block_ids(o): return o.name if isinstance(o, Path) else next((l for l in o.splitlines() if l and not re.match(r'from|import|pass', l)), 'pass')[:40]

def resolve(node, names):
    "The object that `a.b.c` is; None where that is known only when it runs."
    if isinstance(node, ast.Name): return names.get(node.id)
    if isinstance(node, ast.Attribute) and inspect.ismodule(o := resolve(node.value, names)): return getattr(o, node.attr)

def look_up(text):
    "Names that nothing defines, attributes that modules have not, arguments that functions do not take: the first of these raises."
    tree,names = ast.parse(text),dict(vars(builtins))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import,ast.ImportFrom)):
            if (getattr(node, 'module', None) or '').startswith('google'): names |= {a.asname or a.name:None for a in node.names}
            else: exec(compile(ast.Module([node], []), 'imports', 'exec'), names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store): names.setdefault(node.id)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id not in names: raise NameError(node.id)
        if isinstance(node, ast.Attribute): resolve(node, names)
        if isinstance(node, ast.Call) and (f := resolve(node.func, names)) is not None and not isinstance(f, type):
            inspect.signature(f).bind(*[0]*len(node.args), **{k.arg:0 for k in node.keywords if k.arg})

@pytest.mark.parametrize('page,text', [o for o in python_blocks if is_read_only(o[1])], ids=block_ids)
def test_python_block_is_read(page, text): look_up(text)

@pytest.mark.parametrize('text,error', [('upscal(3)',NameError), ('import sr_fastai\nsr_fastai.upscal(3)',AttributeError), ('from sr_fastai import upscale\nupscale(1, scal=2)',TypeError), ('from sr_fastai import upscal',ImportError), ('f(',SyntaxError)])
def test_wrong_python_is_refused(text, error):
    with pytest.raises(error): look_up(text)

@pytest.fixture
def little(at_desk, monkeypatch):
    "What stands before a block: small nets and crops under the usual names, every fit one epoch."
    import matplotlib
    matplotlib.use('Agg')
    import sr_fastai.all as everything
    from sr_fastai.learner import SRGANLearner
    small = dict(div2k_dataloaders=dict(size=16, bs=2, crops=1), Generator=dict(width=8, depth=1), Discriminator=dict(width=4, depth=2, hidden=16))
    for k,kw in small.items(): monkeypatch.setattr(everything, k, lambda *a, _f=getattr(everything, k), _kw=kw, **more: _f(*a, **{**more, **_kw}))
    for k in ('fit','fit_one_cycle','pretrain'): monkeypatch.setattr(SRGANLearner, k, lambda self, n, *a, _f=getattr(SRGANLearner, k), **kw: _f(self, 1, *a, **kw))
    names = {k:getattr(everything, k) for k in everything.__dict__ if not k.startswith('_')}
    path = everything.untar_div2k(sample=True)
    return {**names, 'path':path, 'photo':'photo.png', 'learn':everything.gan_learner(everything.div2k_dataloaders(path), everything.Generator(), everything.Discriminator())}

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('page,text', [o for o in python_blocks if not is_read_only(o[1])], ids=block_ids)
def test_python_block_is_run(page, text, little, at_desk):
    before = (at_desk/'mine.safetensors').read_bytes()
    exec(compile(text, page.name, 'exec'), little)
    if "'mine.safetensors'" in text: assert (at_desk/'mine.safetensors').read_bytes()!=before
