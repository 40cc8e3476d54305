#!/usr/bin/env python
"""What a contributor runs before a commit: `python tools/prepare.py` exports, cleans, makes the README and tests; `--check` changes nothing and says whether all is in step."""
import shutil, subprocess, sys, tempfile
from pathlib import Path
from fastcore.script import call_parse

root = Path(__file__).parent.parent

def run(*cmd, cwd=root):
    "Run `cmd` and stop here if it fails."
    print('$', *cmd, flush=True)
    res = subprocess.run([str(c) for c in cmd], cwd=cwd).returncode
    if res: sys.exit(res)

def snapshot(d):
    "The files of the repository that export, cleaning and the README write."
    files = [*d.glob('nbs/**/*.ipynb'), *d.glob('sr_fastai/*.py'), d/'README.md', d/'pyproject.toml']
    return {f.relative_to(d):f.read_bytes() for f in files if f.exists() and '.ipynb_checkpoints' not in f.parts}

def make(d):
    "Export, clean and render in `d`."
    run('nbdev_export', cwd=d)
    run('nbdev_clean', cwd=d)
    run(sys.executable, 'tools/readme.py', cwd=d)

@call_parse
def main(
    check:bool=False, # Change nothing: make it all in a copy, and name what differs
    no_test:bool=False # Leave out nbdev_test and pytest
):
    "Export, clean, make the README, test."
    if check:
        with tempfile.TemporaryDirectory() as tmp:
            copy = Path(tmp)/'sr_fastai'
            shutil.copytree(root, copy, ignore=shutil.ignore_patterns('.git', '.venv', '*.egg-info', '__pycache__', 'build', 'dist'))
            before = snapshot(copy)
            make(copy)
            after = snapshot(copy)
        stale = sorted(str(f) for f in {*before,*after} if before.get(f)!=after.get(f))
        if stale: sys.exit(f'not in step: {", ".join(stale)}. Run `python tools/prepare.py --no_test` and commit what it writes.')
        print('notebooks are clean; library and README are in step with them')
    else: make(root)
    if not no_test:
        run('nbdev_test')
        run(sys.executable, '-m', 'pytest')
