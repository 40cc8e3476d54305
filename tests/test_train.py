"`sr_train`: a process, its files, what it refuses, and that it goes on after a kill."
import json, signal, subprocess, sys, time
from pathlib import Path
import filelock, pytest, torch
from safetensors.torch import load_file
from sr_fastai.checkpoint import read_checkpoint
from sr_fastai.train import TrainConfig, config_dls, config_learner, config_of_args, sr_train
from sr_fastai.weights import load_weights, read_card

tiny = '--data=sample --size=16 --crops=2 --bs=4 --width=8 --depth=1 --critic_width=4 --critic_depth=2 --device=cpu --precision=fp32'.split()

def start(cwd, *args): return subprocess.Popen([sys.executable, '-W', 'ignore', '-c', 'import sys; from sr_fastai.train import sr_train; sys.exit(sr_train())', *tiny, *args],
                                               cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

def test_killed_and_resumed_equals_never_killed(tmp_path):
    args = '--pretrain=1 --epochs=3 --schedule=one_cycle --every=2 --joint --ema=.9'.split()
    killed = start(tmp_path, *args, '--out=killed')
    deadline = time.time()+120
    while not (tmp_path/'killed'/'gan'/'last.pt').exists() and killed.poll() is None and time.time()<deadline: time.sleep(.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path/'killed'/'weights.safetensors').exists(), 'it ended before it could be killed'
    both = [start(tmp_path, *args, f'--out={o}') for o in ('killed','whole')]
    for p in both:
        err = p.communicate()[1]
        assert p.returncode==0, err
    a,b = (load_file(tmp_path/o/'weights.safetensors') for o in ('killed','whole'))
    assert all((a[k]==b[k]).all() for k in a)
    card = read_card(tmp_path/'whole'/'weights.safetensors')
    again,_ = config_of_args(card['command'].split()[1:])
    assert again==TrainConfig.from_yaml(tmp_path/'whole'/'config.yaml')
    assert load_weights(tmp_path/'whole'/'weights.safetensors').config==dict(scale=2, width=8, depth=1, head='subpixel', slope=0., symmetry=None)
    assert {'config.yaml','losses.png','previews','weights.safetensors'} <= {o.name for o in (tmp_path/'whole').iterdir()}

@pytest.mark.parametrize('args,words', [
    (['--widht','3'], "no option 'widht'; did you mean 'width'"), (['--bs','0'], 'bs: '), (['--adv','wgan'], 'adv: '), (['--track','mild','--scale','2'], 'mild'), (['--init','nowhere.safetensors','--width=64','--depth=16'], 'nowhere.safetensors'),
    (['--data','nowhere'], 'nowhere'), (['--device','quantum'], 'quantum'), (['--size','4000'], 'crop'), (['--bs','400'], '400'), (['--n_crit','2','--joint'], 'joint'), (['--init','base'], 'width: '), (['--init_scale','2'], 'init_scale: '), (['--strength','.5'], 'strength: '), (['--epochs','0'], 'epochs: '), (['--zoom','.5'], 'zoom: '), (['--zoom','0','--fresh'], 'zoom: '), (['--pretrain','1','--pretrain_percep','1'], 'pretrain_percep: '), (['--pretrain_teacher','base'], 'pretrain_teacher: '), (['--pretrain','1','--pretrain_teacher','base,nowhere.safetensors'], 'nowhere.safetensors'), (['--valid','.'], 'valid: '), (['--monitor','fid','--epochs','1'], 'fid'), (['--monitor','fid','--pretrain','1','--epochs','0'], 'fid'), (['--monitor','fid','--pretrain','1','--epochs','1'], 'fid'), (['x.yaml'], 'x.yaml')])
def test_bad_input_is_one_sentence_before_the_first_batch(args, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sr_train([*args[:1], *tiny, *args[1:]] if args[0]=='x.yaml' else [*tiny, *args])==2
    err = capsys.readouterr().err.strip()
    assert err.startswith('sr_train: ') and '\n' not in err and words in err, err
    assert not list(tmp_path.glob('runs/**/*.*'))

def test_who_is_its_own_teacher_has_nothing_to_learn(tmp_path, monkeypatch):
    "From originals it has, and from another with it."
    monkeypatch.chdir(tmp_path)
    def learnt(out, *args):
        assert sr_train([*(o for o in tiny if o[:7] not in ('--width','--depth')), '--init=lite', '--pretrain=1', '--epochs=0', '--ema=none', f'--out={out}', *args])==0
        return load_weights(tmp_path/out/'weights.safetensors').last.weight
    start = load_weights('lite').last.weight
    assert torch.equal(learnt('own', '--pretrain_teacher=lite'), start)
    assert not torch.equal(learnt('originals'), start)
    assert not torch.equal(learnt('two', '--pretrain_teacher=lite,base'), start)

def test_other_settings_in_the_same_folder_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sr_train([*tiny, '--epochs=1'])==0
    assert sr_train([*tiny, '--epochs=1', '--w_adv=.1'])==2
    assert 'w_adv' in capsys.readouterr().err
    assert sr_train([*tiny, '--epochs=1', '--width=16'])==2

def test_a_gan_stays_with_its_pretraining(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for out,first,then in (('a',[],['--pretrain=1']),('b',['--pretrain=1'],[])):
        assert sr_train([*tiny, '--epochs=1', f'--out={out}', *first])==0
        was = (tmp_path/out/'weights.safetensors').read_bytes()
        capsys.readouterr()
        assert sr_train([*tiny, '--epochs=1', f'--out={out}', *then])==2
        assert 'pretrain: ' in capsys.readouterr().err and (tmp_path/out/'weights.safetensors').read_bytes()==was

def test_two_trainings_in_one_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'a').mkdir()
    with filelock.FileLock(tmp_path/'a'/'.lock'):
        assert sr_train([*tiny, '--epochs=1', '--out=a'])==2
    assert 'a training is running in this folder' in capsys.readouterr().err

def test_the_card_names_the_commit_that_it_began_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begun = tmp_path/'a'/'begun.json'
    assert sr_train([*tiny, '--epochs=1', '--out=a'])==0
    begun.write_text(json.dumps(dict(json.loads(begun.read_text()), commit='first')))
    assert sr_train([*tiny, '--epochs=2', '--out=a'])==0
    assert read_card('a/weights.safetensors')['commit']=='first'

def test_memory_that_runs_out_is_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    def train(config): raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB.\nMore lines')
    monkeypatch.setattr('sr_fastai.train.train', train)
    assert sr_train(tiny)==2
    err = capsys.readouterr().err
    assert err.count('\n')==1 and 'bs' in err and 'Tried to allocate 2 GiB' in err

def test_given_twice_in_a_file(tmp_path):
    (tmp_path/'c.yaml').write_text('critic: {width: 32}\ncritic_width: 48\n')
    with pytest.raises(ValueError, match='critic_width is given twice'): TrainConfig.from_yaml(tmp_path/'c.yaml')

def test_more_epochs_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for out,n in (('a',1),('a',2),('b',2)): assert sr_train([*tiny, '--epochs', str(n), '--out', out])==0
    a,b = (load_file(tmp_path/o/'weights.safetensors') for o in 'ab')
    assert all((a[k]==b[k]).all() for k in a)
    # 0.2.0 kept the options in place of what came of them
    sd = torch.load('a/gan/last.pt', weights_only=True)
    sd['settings'] |= dict(schedule='"constant"', lr='0.0001', wd='0.0', precision='"fp32"')
    torch.save(sd, 'a/gan/last.pt')
    assert sr_train([*tiny, '--epochs=3', '--out=a', '--lr=1e-3'])==2
    assert sr_train([*tiny, '--epochs=3', '--out=a'])==0
    assert read_checkpoint('a/gan/last.pt')['epoch']==3

def test_another_strength_exports_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nets = []
    for strength in (1,.5):
        assert sr_train([*tiny, '--pretrain=1', '--epochs=1', f'--strength={strength}', '--out=a'])==0
        nets.append(load_file('a/weights.safetensors'))
    whole,half = nets
    for k in (k for k in whole if not k.startswith('start.')):
        assert torch.equal(whole['start.'+k], half['start.'+k])
        torch.testing.assert_close(half[k], (whole['start.'+k]+whole[k])/2)

def test_pretraining_alone_keeps_its_best_by_the_monitor(tmp_path):
    assert sr_train([*tiny, '--pretrain=1', '--epochs=0', '--monitor=ssim', f'--out={tmp_path}'])==0
    assert read_checkpoint(tmp_path/'pretrain'/'best.pt')['best']['column']=='ssim'

def test_lr_made_anew_needs_no_files_of_its_track():
    "DIV2K's mild track has no x2, but LR that is made of HR may be as it is."
    c = TrainConfig(data='sample', track='mild', scale=2, fresh=True, size=16, bs=2, crops=1, device='cpu')
    assert [o.shape[-1] for o in config_dls(c).one_batch()]==[16,32]

def test_whole_images_are_measured_in_the_training_s_precision():
    c = TrainConfig(data='sample', size=16, bs=2, crops=1, width=8, depth=1, critic_width=4, critic_depth=2, device='cpu', precision='bf16', whole='psnr')
    assert config_learner(c, config_dls(c)).metrics[-1].whole.precision=='bf16'

def test_momentum_is_the_config_s(tmp_path):
    "fastai's one cycle has a momentum of its own, which `mom` has to replace."
    c = TrainConfig(data='sample', size=16, bs=4, crops=1, width=8, depth=1, critic_width=4, critic_depth=2, device='cpu', precision='fp32', mom=.5, out=str(tmp_path))
    learn = config_learner(c, config_dls(c))
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1)
    assert {h['mom'] for h in learn.opt.hypers}=={.5}

def test_config_of_weights_to_start_from_states_no_other_architecture(tmp_path):
    c = TrainConfig(init='lite')
    c.to_yaml(tmp_path/'c.yaml')
    assert '\nwidth' not in (tmp_path/'c.yaml').read_text() and TrainConfig.from_yaml(tmp_path/'c.yaml')==c
    TrainConfig(width=32).to_yaml(tmp_path/'c.yaml')
    assert '\nwidth: 32' in (tmp_path/'c.yaml').read_text()

@pytest.mark.parametrize('values,option,value', [
    ({'generator':{'width':48}}, 'width', 48), ({'critic':{'width':32}}, 'critic_width', 32), ({'discriminator':{'width':32}}, 'critic_width', 32), ({'discriminator':{'lr':1e-3}}, 'critic_lr', 1e-3),
    ({'pretrain':{'epochs':20}}, 'pretrain', 20), ({'pretrain':{'lr':1e-2}}, 'pretrain_lr', 1e-2), ({'gan.critic.depth':3}, 'critic_depth', 3), ({'loss':{'pixel':'mse'}}, 'pixel', 'mse')])
def test_a_section_sets_what_it_names_and_no_more(values, option, value):
    assert TrainConfig.from_dict(values).changed=={option:value}

@pytest.mark.parametrize('values', [{'critic':{'epochs':3}}, {'pretrain':{'bs':3}}, {'valid':{'size':64}}, {'discriminator':{'schedule':'one_cycle'}}, {'init':{'width':32}}])
def test_a_section_does_not_set_what_is_of_all(values):
    with pytest.raises(ValueError, match='there is no option'): TrainConfig.from_dict(values)

def test_a_folder_is_no_file_of_options(tmp_path, capsys):
    assert sr_train([str(tmp_path)])==2
    assert 'is given by --data' in capsys.readouterr().err
