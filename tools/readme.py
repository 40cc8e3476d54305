#!/usr/bin/env python
"""README.md from nbs/index.ipynb, without Quarto: `python tools/readme.py` writes it, `--check` only says whether it is in step."""
import re, sys
from pathlib import Path
import nbformat
from fastcore.script import call_parse
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import Preprocessor

root = Path(__file__).parent.parent

class Directives(Preprocessor):
    "Drop cells that nbdev hides, and the directives of the others."
    def preprocess(self, nb, resources):
        nb.cells = [c for c in nb.cells if not re.search(r'^#\|\s*hide\s*$', c.source, re.M)]
        for c in nb.cells:
            if c.cell_type=='code':
                c.source = re.sub(r'^#\|.*\n?', '', c.source, flags=re.M).strip()
                # text output only: pictures are files, so that the README stays light
                c.outputs = [o for o in c.outputs if o.output_type=='stream' and o.name=='stdout' or 'text/plain' in o.get('data', {}) and 'image/png' not in o.data]
        return nb, resources

def render(
    nb:Path # The notebook
)->str:
    "The notebook as Markdown, with paths relative to the root of the repository."
    md,_ = MarkdownExporter(preprocessors=[Directives]).from_notebook_node(nbformat.read(nb, 4))
    md = md.replace('](images/', f']({nb.parent.name}/images/').replace('src="images/', f'src="{nb.parent.name}/images/')
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
