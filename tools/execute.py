#!/usr/bin/env python
"""Run notebooks and keep their outputs: `python tools/execute.py nbs/11_learner.ipynb ...`; warnings and progress bars, which belong to one machine and one run, are left out."""
import re
from pathlib import Path
import nbformat
from fastcore.script import Param, call_parse
from nbclient import NotebookClient
from nbdev.clean import clean_nb

skipped = re.compile(r'^#\|\s*(slow|cuda|eval:\s*false)\s*$', re.M) # what nbdev_test skips, unless asked

def keep(o):
    "Whether an output is for the reader."
    if o.output_type=='stream': return o.name=='stdout'
    html = o.get('data', {}).get('text/html')
    return html is None or bool(html.strip()) and '<progress' not in html and 'progress {' not in html

@call_parse
def main(
    notebooks:Param("Notebooks to run", Path, nargs="+")
):
    "Run notebooks in place, in their folders."
    for path in notebooks:
        nb = nbformat.read(path, 4)
        run = nbformat.v4.new_notebook(metadata=nb.metadata)
        run.cells = [c for c in nb.cells if not skipped.search(c.source)] # the same cells: their outputs are nb's
        NotebookClient(run, timeout=1800, coalesce_streams=True, resources=dict(metadata=dict(path=path.parent))).execute()
        for c in run.cells:
            if c.cell_type=='code': c.outputs = [o for o in c.outputs if keep(o)]
        clean_nb(nb)
        nbformat.write(nb, path)
        print(path)
