#!/usr/bin/env python
"""README.md from nbs/index.ipynb, without Quarto: `python tools/readme.py` writes it, `--check` only says whether it is in step."""
import re, sys
from pathlib import Path
import nbformat
from fastcore.script import call_parse
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import Preprocessor

root = Path(__file__).resolve().parent.parent

class Directives(Preprocessor):
    "Drop cells and sources that nbdev hides, and the directives of the others."
    def preprocess(self, nb, resources):
        nb.metadata.language_info = dict(name='python') # of the code blocks
        nb.cells = [c for c in nb.cells if not re.search(r'^#\|\s*hide\s*$', c.source, re.M)]
        for c in nb.cells:
            if c.cell_type=='code':
                if re.search(r'^#\|\s*echo:\s*false\s*$', c.source, re.M): c.metadata.transient = dict(remove_source=True) # what nbconvert's templates look at
                c.source = re.sub(r'^#\|.*\n?', '', c.source, flags=re.M).strip()
                # text output only: pictures are files, so that the README stays light
                c.outputs = [o for o in c.outputs if o.output_type=='stream' and o.name=='stdout' or 'text/plain' in o.get('data', {}) and 'image/png' not in o.data]
        return nb, resources

def from_root(nb, link):
    "A link relative to the notebook, relative to the root; what it names has to be there."
    path = (nb.parent/link).resolve()
    if not path.exists(): sys.exit(f'{nb.name} links to {link}, which is not there')
    return path.relative_to(root).as_posix()

def render(
    nb:Path # The notebook
)->str:
    "The notebook as Markdown, with paths relative to the root of the repository."
    md,_ = MarkdownExporter(preprocessors=[Directives]).from_notebook_node(nbformat.read(nb, 4))
    md = re.sub(r'\]\((?![a-z]+:|#)([^)#]+)', lambda m: f']({from_root(nb, m[1])}', md)
    head = f'<!-- Made from {nb.parent.name}/{nb.name} by tools/readme.py: edit the notebook. -->\n\n'
    return head + re.sub(r'\n{3,}', '\n\n', md).strip() + '\n'

@call_parse
def main(
    check:bool=False # Change nothing; exit code 1 if README.md is not in step
):
    "Make README.md from nbs/index.ipynb."
    readme,new = root/'README.md',render(root/'nbs'/'index.ipynb')
    if not check: readme.write_text(new, encoding='utf-8')
    elif not readme.exists() or readme.read_text(encoding='utf-8')!=new: sys.exit('README.md is not what nbs/index.ipynb gives: run `python tools/readme.py` and commit it')
