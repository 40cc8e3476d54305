"""Pairs per second of sr_fastai's data path, LR 128x128 / HR 256x256, against the three ways in which super-resolution is usually fed:

    (a) fastai, decoding whole PNGs
    (b) sub-images of 480x480, cut once and decoded each time, as BasicSR does
    (c) the same PNGs in LMDB

    python benchmarks/bench_data.py [--images 24] [--seconds 4] [--size 128] [--bs 6] [--full] [--keep FOLDER]

(b) and (c) follow BasicSR's dataset: OpenCV decodes, float32, paired crop, flips and turns, tensor, torch's DataLoader. They and `lmdb` come with `pip install opencv-python-headless lmdb`.
Images of DIV2K's size are made of the sample's photographs. `--full` builds the cache of 800 of them (17 GB of disk, minutes).
"""
import argparse, os, random, shutil, tempfile, time
from pathlib import Path
import numpy as np, torch
from PIL import Image
from fastai.vision.all import DataBlock, ImageBlock, PILImage, ItemTransform
from sr_fastai.cache import read_rgb
from sr_fastai.data import *
from sr_fastai.resample import bicubic_down

def photograph(rng, h=1356, w=2040):
    "DIV2K's size, of turned pieces of the sample's photographs: PNG finds as much to compress as in a photograph."
    crops = [read_rgb(div2k_hr(f)).transpose(1,2,0) for f in div2k_lr(untar_div2k(sample=True), 2)]
    rows = [np.hstack([np.rot90(rng.choice(crops), rng.randrange(4)) for _ in range(w//432+1)]) for _ in range(h//432+1)]
    return np.ascontiguousarray(np.vstack(rows)[:h,:w])

def make_div2k(root, n):
    rng = random.Random(0)
    for split,nums in (('train',range(1,n+1)), ('valid',[801])):
        hr_dir,lr_dir = root/f'DIV2K_{split}_HR',root/f'DIV2K_{split}_LR_bicubic'/'X2'
        for d in (hr_dir,lr_dir): d.mkdir(parents=True, exist_ok=True)
        for i in nums:
            hr = photograph(rng)
            Image.fromarray(hr).save(hr_dir/f'{i:04d}.png')
            Image.fromarray(bicubic_down(hr, 2)).save(lr_dir/f'{i:04d}x2.png')

class CropImages(ItemTransform):
    "A crop of two PIL images, as a fastai user writes it."
    def __init__(self, size): self.size = size
    def encodes(self, o):
        lr,hr = o
        n,x,y = self.size,random.randrange(lr.width-self.size+1),random.randrange(lr.height-self.size+1)
        return PILImage.create(lr.crop((x,y,x+n,y+n))),PILImage.create(hr.crop((2*x,2*y,2*(x+n),2*(y+n))))

def whole_pngs(root, args, workers):
    block = DataBlock(blocks=(ImageBlock(PILImage), ImageBlock(PILImage)), get_items=lambda p: list(div2k_lr(p))*1000, get_y=div2k_hr, splitter=div2k_splitter, item_tfms=CropImages(args.size))
    return block.dataloaders(root, bs=args.bs, num_workers=workers).train # 1000 epochs as one

def cut(root, dest, side=480):
    "Sub-images: HR `side`, LR half of it."
    for f in sorted((root/'DIV2K_train_HR').glob('*.png')):
        hr,lr = np.array(Image.open(f)),np.array(Image.open(root/'DIV2K_train_LR_bicubic'/'X2'/f'{f.stem}x2.png'))
        for y in range(0, hr.shape[0]-side+1, side):
            for x in range(0, hr.shape[1]-side+1, side):
                for kind,img,s in (('hr',hr,1),('lr',lr,2)):
                    out = dest/kind/f'{f.stem}_{y}_{x}.png'
                    out.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(img[y//s:(y+side)//s,x//s:(x+side)//s]).save(out)

class SubImages(torch.utils.data.Dataset):
    "What BasicSR's paired dataset does for an item."
    def __init__(self, folder, size, db=None):
        self.names,self.folder,self.size,self.db,self.env = sorted(f.name for f in (folder/'hr').iterdir()),folder,size,db,None
    def __len__(self): return 10**6
    def read(self, kind, name):
        import cv2
        if self.db:
            import lmdb
            if self.env is None: self.env = lmdb.open(str(self.db), readonly=True, lock=False, readahead=False)
            with self.env.begin(write=False) as t: b = t.get(f'{kind}/{name}'.encode())
        else: b = (self.folder/kind/name).read_bytes()
        return cv2.imdecode(np.frombuffer(b, np.uint8), cv2.IMREAD_COLOR).astype(np.float32)/255
    def __getitem__(self, _):
        import cv2
        name,n = random.choice(self.names),self.size
        hr,lr = self.read('hr', name),self.read('lr', name)
        y,x = random.randrange(lr.shape[0]-n+1),random.randrange(lr.shape[1]-n+1)
        res = [lr[y:y+n,x:x+n],hr[2*y:2*(y+n),2*x:2*(x+n)]]
        if random.random()<.5: res = [o[:,::-1] for o in res]
        if random.random()<.5: res = [o[::-1] for o in res]
        if random.random()<.5: res = [o.transpose(1,0,2) for o in res]
        return [torch.from_numpy(cv2.cvtColor(np.ascontiguousarray(o), cv2.COLOR_BGR2RGB).transpose(2,0,1)).float() for o in res]

def sub_images(folder, args, workers, db=None):
    return torch.utils.data.DataLoader(SubImages(folder, args.size, db), batch_size=args.bs, num_workers=workers)

def to_lmdb(folder, dest):
    import lmdb
    with lmdb.open(str(dest), map_size=2**34) as env, env.begin(write=True) as t:
        for f in folder.rglob('*.png'): t.put(f'{f.parent.name}/{f.name}'.encode(), f.read_bytes())

def ours(root, args, workers):
    return div2k_dataloaders(root, 2, args.size, args.bs, n=10**6, num_workers=workers, cache=root.parent/'cache').train

def rate(dl, seconds, bs):
    "Pairs per second, after the first two batches."
    it = iter(dl)
    for _ in range(2): next(it)
    n,t = 0,time.perf_counter()
    while (d := time.perf_counter()-t)<seconds:
        next(it)
        n += 1
    return n*bs/d

def anonymous_mb():
    "This process' own memory; pages of the mapped cache belong to the system, which takes them back when it wants."
    with open('/proc/self/status') as f: return next(int(l.split()[1]) for l in f if l.startswith('RssAnon'))/1e3

def main():
    p = argparse.ArgumentParser()
    p.add_argument('--images', type=int, default=24)
    p.add_argument('--seconds', type=float, default=4)
    p.add_argument('--size', type=int, default=128)
    p.add_argument('--bs', type=int, default=6)
    p.add_argument('--full', action='store_true')
    p.add_argument('--keep', type=Path, help='folder for the images, to be used again')
    args = p.parse_args()
    torch.set_num_threads(1)
    tmp = args.keep or Path(tempfile.mkdtemp())
    root = tmp/f'div2k{args.images}'
    if not root.exists():
        make_div2k(root, args.images)
        cut(root, tmp/'sub')
        to_lmdb(tmp/'sub', tmp/'lmdb')
    shutil.rmtree(tmp/'cache', ignore_errors=True)
    t = time.perf_counter()
    dl = ours(root, args, 0)
    t = time.perf_counter()-t
    px = dl.store.pixels.stat().st_size
    print(f'cache of {args.images} pairs: {t:.1f} s, {px/1e9:.2f} GB; so 800 pairs: {t/args.images*800:.0f} s, {px/args.images*800/1e9:.1f} GB\n')
    print(f'LR {args.size}x{args.size}, batches of {args.bs}   | in the process | one worker | two workers   (pairs/s)')
    ways = dict(sr_fastai=lambda w: ours(root, args, w), whole_PNGs=lambda w: whole_pngs(root, args, w),
                sub_images=lambda w: sub_images(tmp/'sub', args, w), LMDB=lambda w: sub_images(tmp/'sub', args, w, tmp/'lmdb'))
    first = {}
    for name,f in ways.items():
        r = [rate(f(w), args.seconds, args.bs) for w in (0,1,2)]
        first[name] = r
        print(f'{name:28} | {r[0]:14.0f} | {r[1]:10.0f} | {r[2]:10.0f}')
    for name in list(ways)[1:]: print(f'sr_fastai is {first["sr_fastai"][0]/first[name][0]:.1f} times {name} in the process, {first["sr_fastai"][2]/first[name][2]:.1f} times with two workers')
    print(f'a batch of {args.bs} takes {args.bs/first["sr_fastai"][0]*1e3:.2f} ms')
    dl = div2k_dataloaders(root, 2, args.size, args.bs, crops=50, cache=tmp/'cache').train
    mem = []
    for _ in range(6):
        for b in dl: pass
        mem.append(anonymous_mb())
    print('own memory after each of six epochs, MB:', *(f'{m:.0f}' for m in mem))
    if args.full:
        big = tmp/'div2k800'
        if not big.exists():
            for split in ('train','valid'):
                for d in (f'DIV2K_{split}_HR',f'DIV2K_{split}_LR_bicubic/X2'): (big/d).mkdir(parents=True)
            for i in range(800):
                n = i % args.images + 1
                shutil.copy(root/'DIV2K_train_HR'/f'{n:04d}.png', big/'DIV2K_train_HR'/f'{i+1:04d}.png')
                shutil.copy(root/'DIV2K_train_LR_bicubic'/'X2'/f'{n:04d}x2.png', big/'DIV2K_train_LR_bicubic'/'X2'/f'{i+1:04d}x2.png')
            for d,f in (('DIV2K_valid_HR','0801.png'),('DIV2K_valid_LR_bicubic/X2','0801x2.png')): shutil.copy(root/d/f, big/d/f)
        t = time.perf_counter()
        dl = ours(big, args, 0)
        print(f'cache of 800 pairs: {time.perf_counter()-t:.0f} s, {dl.store.pixels.stat().st_size/1e9:.1f} GB; then {rate(dl, 20, args.bs):.0f} pairs/s')
    if not args.keep: shutil.rmtree(tmp)

if __name__=='__main__': main()
