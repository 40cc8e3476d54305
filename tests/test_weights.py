"Weights files that are damaged, exchanged, or not weights at all."
import json, pickle, struct
from pathlib import Path
import pytest, torch, safetensors.torch
from hypothesis import given, settings, strategies as st
from sr_fastai.models import Generator
from sr_fastai.weights import *
from sr_fastai.weights import FORMAT, VERSION

CARD = dict(purpose='tests', data='none', command='none', seed=1, commit='none', licence='CC0-1.0', figures={})

@pytest.fixture(scope='module')
def good(tmp_path_factory): return save_weights(Generator(width=4, depth=1), tmp_path_factory.mktemp('w')/'good.safetensors', CARD)

def one_sentence(e): assert '\n' not in str(e.value) and len(str(e.value))<400

def test_pickles_are_not_opened(tmp_path):
    hit = tmp_path/'hit'
    class Evil:
        def __reduce__(self): return (open, (str(hit), 'w'))
    (tmp_path/'a.pkl').write_bytes(pickle.dumps(Evil()))
    torch.save({'a':torch.zeros(1)}, tmp_path/'b.pth')
    (tmp_path/'c.safetensors').write_bytes((tmp_path/'a.pkl').read_bytes())
    for n in ('a.pkl','b.pth','c.safetensors'):
        with pytest.raises(WeightsError, match='pickle') as e: load_weights(tmp_path/n)
        one_sentence(e)
    assert not hit.exists()

def test_truncated_at_any_place(good, tmp_path):
    data,p = good.read_bytes(),tmp_path/'t.safetensors'
    for n in [*range(0, 1200, 37), len(data)-1]:
        p.write_bytes(data[:n])
        with pytest.raises(WeightsError) as e: load_weights(p)
        one_sentence(e)

@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_mutated_ends_in_a_model_or_a_sentence(good, tmp_path_factory, data):
    b = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(1,4))): b[data.draw(st.integers(0, 700))] = data.draw(st.integers(0,255))
    p = tmp_path_factory.mktemp('m')/'m.safetensors'
    p.write_bytes(b)
    try: load_weights(p)
    except WeightsError: pass

def write(p, config, sd=None, **meta):
    sd = Generator(width=4, depth=1).state_dict() if sd is None else sd
    p.write_bytes(safetensors.torch.save(sd, {**dict(format=FORMAT, version=VERSION, config=json.dumps(config), card='{}'), **meta}))
    return p

@pytest.mark.parametrize('config', [dict(width=5, depth=1), dict(width=4, depth=2), dict(scale=3, width=4, depth=1), dict(width=4, depth=10**9), dict(width=10**9, depth=1),
    dict(width='4'), dict(scale=7), [], None, dict(width=4, depth=-1), dict(width=4, depth=1, slope=-1), dict(width=4, depth=1, slope='steep'), dict(nonsense=1), dict(width=4, depth=1, head='conv')])
def test_wrong_architecture(tmp_path, config):
    with pytest.raises(WeightsError, match='does not fit the architecture|damaged') as e: load_weights(write(tmp_path/'x.safetensors', config))
    assert '\n' not in str(e.value)

def test_file_without_a_newer_option(tmp_path):
    assert load_weights(write(tmp_path/'x.safetensors', dict(scale=2, width=4, depth=1, head='subpixel'))).slope==0

def test_foreign_or_newer(tmp_path):
    safetensors.torch.save_file({'a':torch.zeros(1)}, tmp_path/'a.safetensors')
    with pytest.raises(WeightsError, match='no sr_fastai generator'): load_weights(tmp_path/'a.safetensors')
    with pytest.raises(WeightsError, match='newest sr_fastai'): load_weights(write(tmp_path/'b.safetensors', {}, version='2'))

def test_nan_is_refused(tmp_path):
    g = Generator(width=4, depth=1)
    g.first.bias.data[0] = float('nan')
    with pytest.raises(WeightsError, match='NaN'): load_weights(save_weights(g, tmp_path/'n.safetensors'))

def test_half_precision_files_load_as_fp32(tmp_path):
    g = Generator(width=4, depth=1)
    p = save_weights(g.half(), tmp_path/'h.safetensors')
    assert {v.dtype for v in load_weights(p).state_dict().values()}=={torch.float32}

def test_any_header_length(tmp_path):
    "A header of 128+256k bytes starts like a pickle."
    g,starts = Generator(width=4, depth=1),set()
    for n in range(0, 264, 8):
        p = save_weights(g, tmp_path/'h.safetensors', {'x':'x'*n})
        starts.add(p.read_bytes()[0])
        load_weights(p)
    assert 0x80 in starts

def test_missing_folder_name(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such weights file'): load_weights(tmp_path/'none.safetensors')
    with pytest.raises(WeightsError, match='is a folder'): load_weights(tmp_path)
    with pytest.raises(WeightsError, match='no weights are called'): load_weights('nobody', folder=tmp_path)
    with pytest.raises(WeightsError, match='end in .safetensors'): save_weights(Generator(width=4, depth=1), tmp_path/'a.pth')

def test_loading_leaves_the_random_state(good):
    torch.manual_seed(3)
    a = torch.rand(1)
    torch.manual_seed(3)
    load_weights(good)
    assert torch.rand(1)==a

def test_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(TypeError): save_weights(Generator(width=4, depth=1), tmp_path/'a.safetensors', {'x':object()})
    assert not list(tmp_path.iterdir())

def test_unusable_weights_are_not_written(good, tmp_path):
    g = load_weights(good)
    for v,said in ((7e4,'beyond float16'), (float('inf'),'was not written: the model holds NaN or infinity')):
        with torch.no_grad(): g.first.bias[0] = v
        with pytest.raises(WeightsError, match=said): register_weights(save_weights(g, tmp_path/'far.safetensors', dict.fromkeys(CARD_KEYS, {})), 'far', tmp_path/'w')
    for name in ('v1.5','a/b'):
        with pytest.raises(WeightsError, match='would be taken for a file'): register_weights(good, name, tmp_path/'w')
    assert not (tmp_path/'w').exists()

def test_shipped_cards_are_complete():
    if not registry(): pytest.skip('no weights are shipped yet')
    for o in registry():
        card = read_card(WEIGHTS/o['file'])
        assert all(k in card for k in CARD_KEYS)
    assert {p.name for p in WEIGHTS.glob('*.safetensors')}=={o['file'] for o in registry()}
    assert {p.stem for p in WEIGHTS.glob('*.webp')}=={Path(o['file']).stem for o in registry()}

def test_registering_again_replaces(good, tmp_path):
    for _ in range(2):
        register_weights(good, 'a', tmp_path)
        assert not (tmp_path/'a_x2.webp').exists()
        (tmp_path/'a_x2.webp').touch() # the older one's picture
    assert len(registry(tmp_path))==1
    with pytest.raises(WeightsError, match='lacks purpose, data'): register_weights(save_weights(Generator(width=4, depth=1), tmp_path/'x.safetensors'), 'b', tmp_path)

def test_a_start_that_does_not_fit(tmp_path):
    with pytest.raises(WeightsError, match='another architecture'): save_weights(Generator(width=4, depth=1), tmp_path/'a.safetensors', start=Generator(width=4, depth=2))
    g = Generator(width=4, depth=1)
    sd = {**g.state_dict(), 'start.first.weight':torch.zeros(1)}
    p = write(tmp_path/'b.safetensors', g.config, sd)
    with pytest.raises(WeightsError, match='start does not fit'): load_weights(p, strength=.5)

def test_a_share_of_what_was_learned(tmp_path):
    start,end = Generator(width=4, depth=1),Generator(width=4, depth=1)
    p = save_weights(end, tmp_path/'a.safetensors', start=start, strength=.25)
    for strength,want in ((1,.25),(.5,.125),(0,0)):
        for a,b,c in zip(load_weights(p, strength=strength).parameters(), start.parameters(), end.parameters()): torch.testing.assert_close(a, b+want*(c-b))
    with pytest.raises(WeightsError, match='no start'): save_weights(end, tmp_path/'b.safetensors', strength=.5)
    with pytest.raises(ValueError, match='from 0 to 1'): save_weights(end, tmp_path/'b.safetensors', start=start, strength=2)
    assert not (tmp_path/'b.safetensors').exists()

def test_a_compiled_generator_is_saved_as_itself(tmp_path):
    g,start = Generator(width=4, depth=1),Generator(width=4, depth=1)
    f = save_weights(torch.compile(g), tmp_path/'c.safetensors', CARD, start=torch.compile(start))
    assert torch.equal(load_weights(f).last.weight, g.last.weight) and torch.equal(load_weights(f, strength=0.).last.weight, start.last.weight)

def test_only_generators_are_saved(tmp_path):
    with pytest.raises(TypeError, match='not of a Conv2d'): save_weights(torch.nn.Conv2d(3, 3, 1), tmp_path/'c.safetensors')
