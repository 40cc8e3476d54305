#!/usr/bin/env python
"""Whether the documentation is sound, without Quarto: links, anchors and pictures lead somewhere, each page is in the sidebar, names of the package that are written out exist, code blocks say their language. `--write` makes `nbs/sidebar.yml`."""
import ast, html, json, re, sys
from pathlib import Path
from urllib.parse import unquote
import yaml
from fastcore.script import call_parse

root = Path(__file__).resolve().parent.parent
sections = {'Tutorials':'tutorials/*.ipynb', 'How to':'howto/*.ipynb', 'Modules':'[0-9]*.ipynb'}
first = ['upscale','train','degradations','sweep','custom_op','own_photographs'] # in this order, the others by name
languages = 'sh','python','text' # of code blocks: tests/test_docs.py runs or parses the first two
formats = 'sr_fastai.generator', # that look like names of the package

def sidebar(
    nbs:Path # The folder of the notebooks
)->dict:
    "What `sidebar.yml` has to be: the index, then each section's pages."
    def key(p): return (first.index(p.stem) if p.stem in first else len(first), p.name)
    def pages(glob): return [p.relative_to(nbs).as_posix() for p in sorted(nbs.glob(glob), key=key)]
    return dict(website=dict(sidebar=dict(contents=['index.ipynb', *(dict(section=k, contents=pages(v)) for k,v in sections.items())])))

def doc_files(
    root:Path # Of the repository
)->list:
    "All that people read: Markdown at the top and of the recipes, model cards, notebooks."
    nbs = [p for p in sorted((root/'nbs').rglob('*.ipynb')) if '.ipynb_checkpoints' not in p.parts]
    return [*sorted(root.glob('*.md')), *sorted((root/'recipes').glob('*.md')), *sorted((root/'sr_fastai'/'assets').rglob('*.md')), *nbs]

def text_of(
    path:Path # Markdown or a notebook
)->str:
    "The Markdown of a page."
    text = path.read_text(encoding='utf-8')
    if path.suffix!='.ipynb': return text
    return '\n\n'.join(''.join(c['source']) for c in json.loads(text)['cells'] if c['cell_type']=='markdown')

_fence = re.compile(r'^(`{3,}|~{3,})[^\S\n]*(\w*)[^\n]*\n(.*?)^\1`*[^\S\n]*$', re.M|re.S)

def blocks(
    path:Path # Markdown or a notebook
)->list: # (language, text)
    "The fenced code blocks of a page."
    return [(m[2],m[3]) for m in _fence.finditer(text_of(path))]

def anchors(
    path:Path # Markdown or a notebook
)->set:
    "The anchors of a page's headings, as GitHub makes them."
    found,seen = set(),{}
    for h in re.findall(r'^#{1,6}\s+(.+?)\s*#*$', _fence.sub('', text_of(path)), re.M):
        h = re.sub(r'!?\[([^\]]*)\]\([^)]*\)', r'\1', h)
        a = re.sub(r'[^\w\- ]', '', h.lower()).replace(' ', '-')
        seen[a] = seen.get(a, -1)+1
        found.add(f'{a}-{seen[a]}' if seen[a] else a)
    return found

def links(
    text:str # Markdown
)->list:
    "Targets of links and pictures, outside of code."
    text = re.sub(r'(`+)(?!`).*?(?<!`)\1(?!`)', '', _fence.sub('', text), flags=re.S)
    found = re.findall(r'\[(?:[^\[\]]|\[[^\]]*\](?:\([^)]*\))?)*\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)', text)
    found += re.findall(r'!\[[^\]]*\]\(([^)\s]+)', text) # also within a link
    found += re.findall(r'<(?:img|a)\b[^>]*?\b(?:src|href)="([^"]+)"', text)
    return [html.unescape(o) for o in found + re.findall(r'^\[[^\]]+\]:\s*(\S+)', text, re.M)]

def broken_link(
    path:Path, # The page
    link:str, # What it links to
    root:Path, # Of the repository
    url:str # Of the repository on the web
)->str|None: # What is wrong
    "Looks at links within the repository; others are not followed."
    own = re.match(re.escape(url)+r'/(?:blob|tree|raw)/main/', link)
    if not own and re.match(r'[a-z][a-z0-9+.-]*:|//', link): return
    target,_,anchor = unquote(link[own.end():] if own else link).partition('#')
    to = (root if own else path.parent)/target if target else path
    if not to.exists(): return f'{link} is not there'
    if not to.resolve().is_relative_to(root): return f'{link} is outside of the repository'
    if anchor and to.suffix in ('.md','.ipynb') and anchor.lower() not in anchors(to): return f'{link}: {to.name} has no heading of that name'

def missing_names(
    text:str, # Markdown
    modules:dict # Module to its names
)->list:
    "Names written out as `sr_fastai.module.name` that are not there."
    found = []
    for m in re.finditer(r'`sr_fastai\.(\w+)(?:\.(\w+))?[^`\s]*`', _fence.sub('', text)):
        if m[1] in modules['__init__'] or m[0].strip('`') in formats: continue
        if m[1] not in modules or m[2] and m[2] not in modules[m[1]]: found.append(m[0].strip('`'))
    return found

def names(
    lib:Path # The package's folder
)->dict: # Module to the names in it
    "What each module defines, read and not imported."
    def defined(p):
        tree = ast.parse(p.read_text(encoding='utf-8'))
        out = {o.name for o in tree.body if hasattr(o, 'name')} | {t.id for o in tree.body if isinstance(o, ast.Assign) for t in o.targets if isinstance(t, ast.Name)}
        return out | {n.id for o in ast.walk(tree) if isinstance(o, ast.AnnAssign) and isinstance(n := o.target, ast.Name)}
    return {**{p.stem:defined(p) for p in lib.glob('*.py')}, '__init__':{'upscale','__version__'}}

def problems(
    root:Path=root # Of the repository
)->list:
    "All that is wrong, a sentence each."
    found,nbs = [],root/'nbs'
    url = re.search(r'^git_url\s*=\s*(\S+)', (root/'settings.ini').read_text(encoding='utf-8'), re.M)[1]
    modules = names(root/'sr_fastai')
    for p in doc_files(root):
        text,where = text_of(p),p.relative_to(root)
        found += [f'{where}: {why}' for o in dict.fromkeys(links(text)) if (why := broken_link(p, o, root, url))]
        found += [f'{where}: there is no {o}' for o in missing_names(text, modules)]
        found += [f'{where}: a code block is in {o or "no language"}, not in one of {", ".join(languages)}' for o,_ in blocks(p) if o not in languages]
        if p.suffix=='.ipynb':
            cells = json.loads(p.read_text(encoding='utf-8'))['cells']
            start = ''.join(cells[0]['source']) if cells else ''
            if not re.match(r'# \S[^\n]*\n\n> \S', start): found.append(f'{where}: a page begins with `# Title` and `> what it is about`')
            if re.search(r'^- ', start, re.M): found.append(f'{where}: nbdev takes a list in the first cell for settings of the page')
    linked = {unquote(o).partition('#')[0] for o in links(text_of(nbs/'index.ipynb'))}
    found += [f'nbs/index.ipynb: nothing leads to {o}' for s in sidebar(nbs)['website']['sidebar']['contents'][1:] for o in s['contents'] if o not in linked and s['section']!='Modules']
    try:
        site = yaml.safe_load((nbs/'_quarto.yml').read_text(encoding='utf-8'))
        if site['project']['type']!='website': found.append('nbs/_quarto.yml is of no website')
        for f in site['metadata-files']:
            if not isinstance(yaml.safe_load((nbs/f).read_text(encoding='utf-8')), dict): found.append(f'nbs/{f} holds nothing')
        css = site['format']['html']['css']
        if not (nbs/css).exists(): found.append(f'nbs/_quarto.yml: {css} is not there')
        has = yaml.safe_load((nbs/'sidebar.yml').read_text(encoding='utf-8'))
        if has!=sidebar(nbs): found.append('nbs/sidebar.yml does not list the pages that there are: run `python tools/check_docs.py --write`')
    except (OSError,KeyError,TypeError,yaml.YAMLError) as e: found.append(f'the site: {type(e).__name__}: {" ".join(str(e).split())}')
    return found

@call_parse
def main(
    write:bool=False # Make nbs/sidebar.yml first
):
    "Check links, anchors, pictures, names and the sidebar."
    if write: (root/'nbs'/'sidebar.yml').write_text(yaml.safe_dump(sidebar(root/'nbs'), sort_keys=False), encoding='utf-8')
    found = problems()
    for o in found: print(o)
    if found: sys.exit(1)
    print(f'{len(doc_files(root))} pages are sound')
