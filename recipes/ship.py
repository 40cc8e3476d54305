#!/usr/bin/env python
"""Put trained weights among those that come with the package, with a full model card.

    python benchmarks/bench_quality.py Set5/HR Set14/HR --model runs/x2_base/weights.safetensors --json_out figures.json
    python recipes/ship.py runs/x2_base/weights.safetensors base --figures figures.json --data "..." """
import json, tempfile
from pathlib import Path
from fastcore.script import call_parse
from sr_fastai.weights import load_weights, read_card, register_weights, save_weights

@call_parse
def main(
    weights:Path, # What the recipe wrote
    name:str, # What `upscale(model=...)` will call it
    figures:Path=None, # What `bench_quality.py --json_out` wrote
    data:str='', # What it was trained on: the set, its sources and their licences
    hardware:str='', # What it was trained on: the machine
    weaknesses:str='', # What it is not good at
    commit:str=None, # The commit of the recipe, where the weights' own card does not know it
    licence:str='Apache-2.0' # Of the weights
):
    "Complete the card of trained weights and register them."
    made = {k:v for k,v in read_card(weights).items() if k!='config'}
    card = {**made, 'data':data, 'hardware':hardware, 'weaknesses':weaknesses, 'licence':licence, 'figures':json.loads(figures.read_text())}
    if commit: card['commit'] = commit
    with tempfile.TemporaryDirectory() as tmp:
        full = save_weights(load_weights(weights), Path(tmp)/'full.safetensors', card=card)
        print(json.dumps(register_weights(full, name), indent=1))
