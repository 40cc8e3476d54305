#!/usr/bin/env python
"""Put trained weights among those that come with the package, with a full model card.

    sr_bench quality Set5/HR Set14/HR --model runs/base_x4/weights.safetensors --scale 4 --json figures.json
    python recipes/ship.py runs/base_x4/weights.safetensors base figures.json --purpose "clean pictures" --data "..."
    python tools/card_pictures.py --only base
"""
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from fastcore.script import call_parse
from sr_fastai.quality import card_figures
from sr_fastai.weights import WEIGHTS, load_weights, read_card, register_weights, save_weights

@call_parse
def main(
    weights:Path, # What `sr_train` wrote
    name:str, # What `upscale(model=...)` will call it
    figures:Path, # What `sr_bench quality --json` wrote
    purpose:str='', # What it is for, in a few words
    data:str='', # What it was trained on: the set, its sources and their licences
    hardware:str='', # What it was trained on: the machine
    weaknesses:str='', # What it is not good at
    hours:float=None, # How long that took
    cost:float=None, # What it costs, by `benchmarks/bench_models.py`
    command:str='', # What made it, where the file's own command names folders that mean nothing elsewhere
    licence:str='Apache-2.0', # Of the weights
    alone:bool=False, # Without the weights that their training began with
    start:str=None, # Weights that `strength` is to go back to in place of those: a name of shipped ones, or a file
    folder:Path=WEIGHTS # Where they are to lie
):
    "Complete the card of trained weights and register them."
    more = dict(purpose=purpose, data=data, hashes=read_card(weights).get('data'), command=command, hardware=hardware, hours=hours, cost=cost, weaknesses=weaknesses, licence=licence, figures=card_figures(json.loads(figures.read_text())))
    with TemporaryDirectory() as d:
        if alone or start:
            net,card = load_weights(weights),{k:v for k,v in read_card(weights).items() if k!='config'}
            if start: card |= dict(start=start)
            weights = save_weights(net, Path(d)/weights.name, card, start=load_weights(start, net.scale) if start else None)
        print(json.dumps(register_weights(weights, name, folder, **{k:v for k,v in more.items() if v}), indent=1))
