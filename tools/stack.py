#!/usr/bin/env python3
"""Test with other versions of what sr_fastai stands on than nbdev's pins allow, in a new environment: `python tools/stack.py newest` has the newest of everything, with pytest
and the notebooks; `oldest` the oldest that settings.ini allows, with the fast tests; `extras` each extra in an environment of its own, with the tests that concern it. Needs nothing but Python."""
import argparse, configparser, os, re, subprocess, sys, tempfile, venv
from pathlib import Path

root = Path(__file__).resolve().parent.parent
tools = 'pytest hypothesis scikit-image lpips nbclient ipykernel'.split()
# those of fastai first: they break first. What tests the repository itself, rather than the package, is nbdev's matter
newest = 'learner train show quality checkpoint data tracking sweep engine weights onnx_model distributed'.split()
oldest = 'import resample imageio degrade data ops engine weights folders learner show checkpoint tracking train sweep'.split()
extras = dict(onnx='onnx_model', distrib='distributed', sweep='sweep', cluster='cluster', app='app', cuda='ops_build') # and the tests of each
skipped = re.compile(r'^#\|\s*(slow|cuda|eval:\s*false)\s*$', re.M) # what nbdev_test skips, unless asked

def pins(
    key:str # Of settings.ini, e.g. 'requirements'
)->list: # `numpy==2` for `numpy>=2`
    "The lower bounds of a list of requirements, as pins; each requirement has to have one."
    ini = configparser.ConfigParser(delimiters=['='])
    ini.read(root/'settings.ini', encoding='utf-8')
    reqs = ini['DEFAULT'][key].split()
    if unbounded := [r for r in reqs if '>=' not in r]: sys.exit(f'settings.ini: {key}: {", ".join(unbounded)} without a lower bound (>=)')
    return [re.sub(r'>=([^,]+).*', r'==\1', r) for r in reqs]

def notebooks(files):
    "Run notebooks in their folders, by nbclient alone; nothing is written. Returns the names of those that failed."
    import nbformat
    from nbclient import NotebookClient
    bad = []
    for f in files:
        nb = nbformat.read(f, 4)
        nb.cells = [c for c in nb.cells if not skipped.search(c.source)]
        try: NotebookClient(nb, timeout=1800, resources=dict(metadata=dict(path=f.parent))).execute()
        except Exception as e:
            bad.append(f.name)
            print(f'{f.name}: {e}', flush=True)
        else: print(f.name, 'passed', flush=True)
    return bad

def run(*args):
    print('$', *args, flush=True)
    return subprocess.run([*map(str, args)], cwd=root, env={**os.environ, 'OMP_NUM_THREADS':'1'}).returncode

def environment(d, *args):
    "Its Python, in the folder `d`, where pip installed what the arguments say; None if pip could not."
    venv.create(d, with_pip=True)
    python = d/'bin'/'python'
    return None if run(python, '-m', 'pip', 'install', '-q', *args) else python

def test_extra(extra):
    "Whether the tests of an extra fail where nothing else is installed."
    with tempfile.TemporaryDirectory() as tmp:
        if (python := environment(Path(tmp)/'venv', f'.[{extra}]', 'pytest', 'hypothesis')) is None: return True
        return run(python, '-m', 'pytest', '-rs', f'tests/test_{extras[extra]}.py')!=0

def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('stack', choices=('newest','oldest','extras','notebooks'), help="'notebooks': only run `tests`, notebooks, or all of them, in this environment")
    p.add_argument('tests', nargs='*', help="of tests/, instead of the usual: 'learner train'; 'none': only the notebooks. With `extras`: those to test")
    p.add_argument('--venv', type=Path, help='where the environment is made, and stays; without it, in a temporary folder')
    a = p.parse_args()
    if a.stack=='notebooks':
        files = map(Path, a.tests) if a.tests else (f for f in sorted((root/'nbs').rglob('*.ipynb')) if '.ipynb_checkpoints' not in f.parts)
        bad = notebooks([f.resolve() for f in files])
        return f'failed: {", ".join(bad)}' if bad else 0
    if a.stack=='extras':
        if unknown := set(a.tests)-{*extras}: p.error(f'no such extra: {", ".join(unknown)}; there are {", ".join(extras)}')
        bad = [o for o in a.tests or extras if test_extra(o)]
        return f'failed: {", ".join(bad)}' if bad else 0
    with tempfile.TemporaryDirectory() as tmp:
        d = a.venv or Path(tmp)/'venv'
        # extras come along where they are tested
        what = pins('requirements') + pins('sweep_requirements') if a.stack=='oldest' else ['.[onnx,sweep,distrib]']
        if (python := environment(d, *what, *tools)) is None: return 'these versions cannot be installed together'
        if a.stack=='oldest' and run(python, '-m', 'pip', 'install', '-q', '--no-deps', '.'): return 1
        run(python, '-m', 'pip', 'list')
        files = [f'tests/test_{o}.py' for o in a.tests or dict(newest=newest, oldest=oldest)[a.stack] if o!='none']
        res = run(d/'bin'/'pytest', *files) if files else 0
        if a.stack=='newest': res = run(python, __file__, 'notebooks') or res
    return res

if __name__=='__main__': sys.exit(main())
