#!/usr/bin/env python3
"""Print a command of the README, for CI: `try` (install and upscale) or `test`. Needs nothing but Python."""
import re, sys
from pathlib import Path

def command(
    name:str # What the block's first line says in a comment: `# try` or `# test`
)->str:
    "The shell block of README.md that is marked `name`, without the lines that fetch the repository."
    readme = (Path(__file__).parent.parent/'README.md').read_text(encoding='utf-8')
    blocks = re.findall(r'^```sh\n# (\w+)[^\n]*\n(.*?)^```', readme, re.M|re.S)
    found = [body for mark,body in blocks if mark==name]
    if len(found)!=1: sys.exit(f'README.md has {len(found)} shell blocks marked `# {name}`, not one')
    return found[0]

if __name__=='__main__': print(command(sys.argv[1]), end='')
