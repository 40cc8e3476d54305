"""Makes `sr_fastai/assets/sample`, photographs in DIV2K's layout, and the README's photograph, from Debian's CC0 budgie-backgrounds 3.0-1.

    apt-get download budgie-backgrounds=3.0-1 && dpkg -x budgie-backgrounds_3.0-1_all.deb budgie
    python tools/make_sample.py budgie/usr/share/backgrounds/budgie
"""
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from sr_fastai.degrade import degrade_folder, mild, unknown, wild
from sr_fastai.resample import bicubic_down

assets = Path(__file__).parent.parent/'sr_fastai'/'assets'
side = 432 # divides by 12, and an LR crop of 128 fits at x2 and x3
# split, number, photograph, how many times smaller (so that no JPEG trace is left), left and top of the crop after that
crops = [
    ('train', 1, 'perched-osprey', 2, 530, 200),
    ('train', 2, 'roman-colosseum', 3, 180, 230),
    ('train', 3, 'singaporean-cityscape', 3, 680, 130),
    ('train', 4, 'casa-mila', 4, 440, 190),
    ('train', 5, 'tea-gardens', 2, 900, 700),
    ('train', 6, 'lake-sherburne', 2, 380, 230),
    ('train', 7, 'beacon-street-sunset', 2, 130, 400),
    ('train', 8, 'blue-periwinkle', 2, 780, 520),
    ('valid', 801, 'canyon-wren', 2, 600, 220),
    ('valid', 802, 'high-trestle-trail', 3, 430, 410),
    ('valid', 803, 'piazza-gae-aulenti', 2, 440, 600),
    ('valid', 804, 'oakland-zoo-otters', 2, 560, 280)]

def load(folder, name, smaller):
    x = np.array(Image.open(folder/f'{name}.jpg').convert('RGB'))
    h,w = (n//smaller*smaller for n in x.shape[:2])
    return bicubic_down(x[:h,:w], smaller)

def save(x, dest):
    dest.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(x).save(dest, optimize=True)

def main(folder):
    root = assets/'sample'
    lines = ['file,photograph,smaller,left,top']
    for split,n,name,smaller,left,top in crops:
        hr = load(folder, name, smaller)[top:top+side,left:left+side]
        assert hr.shape==(side,side,3), f'{name}: the crop reaches beyond the photograph'
        save(hr, root/f'DIV2K_{split}_HR'/f'{n:04d}.png')
        for s in (2,3,4): save(bicubic_down(hr, s), root/f'DIV2K_{split}_LR_bicubic'/f'X{s}'/f'{n:04d}x{s}.png')
        lines.append(f'DIV2K_{split}_HR/{n:04d}.png,{name}.jpg,{smaller},{left},{top}')
    # other tracks' manner at x4; the records beside the images make them again
    for split,variants,end in (('train',2,'x4w{}'), ('valid',1,'x4w')):
        hr = root/f'DIV2K_{split}_HR'
        degrade_folder(hr, root/f'DIV2K_{split}_LR_unknown'/'X4', unknown(4), 'x4')
        degrade_folder(hr, root/f'DIV2K_{split}_LR_mild', mild(), 'x4m')
        degrade_folder(hr, root/f'DIV2K_{split}_LR_wild', wild(), end, variants)
    (root/'SOURCES.csv').write_text('\n'.join(lines)+'\n')
    # the README's photograph, and what it looked like at twice the size
    hr = load(folder, 'oakland-zoo-otters', 3)[60:700,250:1210]
    save(bicubic_down(hr, 2), assets/'otters.png')
    Image.fromarray(hr).save(assets/'otters_original.webp', quality=92, method=6)

if __name__=='__main__': main(Path(sys.argv[1]))
