#!/usr/bin/env python
"""What a contributor runs before a commit: `python tools/prepare.py` exports, cleans, makes the README and tests; `--check` changes nothing and says whether all is in step."""
import os, shutil, subprocess, sys, tempfile
from pathlib import Path
from fastcore.script import call_parse

root = Path(__file__).parent.parent

def run(cmd, *args, cwd=root):
    "Run a command of this Python's environment, and stop here if it fails."
    print('$', cmd, *args, flush=True)
    res = subprocess.run([Path(sys.executable).with_name(cmd), *args], cwd=cwd).returncode
    if res: sys.exit(res)

def snapshot(d):
    "The files of the repository that export, cleaning and the README write."
    files = [*d.glob('nbs/**/*.ipynb'), *d.glob('sr_fastai/*.py'), d/'README.md', d/'pyproject.toml']
    return {f.relative_to(d):f.read_bytes() for f in files if f.exists() and '.ipynb_checkpoints' not in f.parts}

def make(d):
    "Export, clean and render in `d`."
    run('nbdev_export', cwd=d)
    run('nbdev_clean', cwd=d)
    run('python', 'tools/readme.py', cwd=d)

def install_hooks():
    "nbdev's merge driver, and `--check --no_test` before each commit."
    run('nbdev_install_hooks')
    hook = root/'.git'/'hooks'/'pre-commit'
    hook.write_text(f'#!/bin/sh\nexec "{sys.executable}" tools/prepare.py --check --no_test\n')
    hook.chmod(0o755)

@call_parse
def main(
    check:bool=False, # Change nothing: make it all in a copy, and name what differs
    no_test:bool=False, # Leave out nbdev_test and pytest
    hooks:bool=False # Only install the git hooks: notebooks merge cell by cell, and no commit while something is out of step
):
    "Export, clean, make the README, test."
    if hooks: return install_hooks()
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
        os.environ['OMP_NUM_THREADS'] = '1' # notebooks and tests run side by side, on tiny nets: threads would only wait for each other
        run('nbdev_test')
        run('pytest', '-n', 'logical', '--maxprocesses', '4')
