"""What an installed wheel must hold; run by CI with that installation's Python, outside the repository."""
import importlib.resources, shutil
from importlib.metadata import entry_points, requires
from pathlib import Path
from PIL import Image
import sr_fastai

pkg = importlib.resources.files('sr_fastai')
here = Path(__file__).parent.parent
assert here not in Path(str(pkg)).parents, f'{pkg} is not the installed package'
assert {o.name for o in (pkg/'csrc').iterdir()} >= {o.name for o in (here/'csrc').iterdir() if o.is_file()}
assert any(o.name.endswith('.safetensors') for o in (pkg/'assets'/'weights').iterdir())
assert {o.name for o in entry_points(group='console_scripts') if o.value.startswith('sr_fastai.')} == {line.split('=')[0] for line in
    next(l for l in (here/'settings.ini').read_text().splitlines() if l.startswith('console_scripts')).split(' = ')[1].split()}
assert any(r.startswith('fastai') for r in requires('sr_fastai'))

small = Image.open(pkg/'assets'/'otters.png')
assert sr_fastai.upscale(small).size == (2*small.width, 2*small.height)

from sr_fastai.data import untar_div2k
from sr_fastai.ops import backend
path = untar_div2k(sample=True, dest=Path.cwd())
assert len(list(path.glob('DIV2K_*_HR/*.png')))==12
shutil.rmtree(path)
print('installed wheel: sources, weights, sample and commands are there;', *backend('cpu'))
