"Everything that nbdev's pyproject.toml calls `dynamic`, read from settings.ini; csrc goes into the package."
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages

root = Path(__file__).parent
ini = ConfigParser(delimiters=['='])
ini.read(root/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
statuses = ['1 - Planning', '2 - Pre-Alpha', '3 - Alpha', '4 - Beta', '5 - Production/Stable', '6 - Mature', '7 - Inactive']

def reqs(key): return cfg.get(key, '').split()
# `dev_requirements` is the extra `dev`, `app_requirements` the extra `app`, and so on
extras = {k.removesuffix('_requirements'): reqs(k) for k in cfg if k.endswith('_requirements')}

# the index shows the README away from its files: links to them become links to the repository
blob = f'{cfg["git_url"]}/blob/{cfg["branch"]}'
readme = re.sub(r'(!?)\[([^]]*)\]\((?![a-z]+:|#)([^)]+)\)', lambda m: f'{m[1]}[{m[2]}]({blob}/{m[3]}{"?raw=true" if m[1] else ""})', (root/'README.md').read_text(encoding='utf-8'))

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'].split(),
    long_description=readme, long_description_content_type='text/markdown',
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'], project_urls={'Changelog': f'{blob}/CHANGELOG.md', 'Documentation': f'{cfg["doc_host"]}{cfg["doc_baseurl"]}'},
    # ours, the linear layers of LPIPS, the photographs
    license_expression='Apache-2.0 AND BSD-2-Clause AND CC0-1.0', license_files=['LICENSE', 'sr_fastai/assets/**/LICENSE*'],
    classifiers=[f'Development Status :: {statuses[cfg.getint("status")-1]}', f'Intended Audience :: {cfg["audience"]}', 'Intended Audience :: Science/Research',
                 f'Natural Language :: {cfg["language"]}', *(f'Programming Language :: Python :: {v}' for v in ['3', *cfg['python_versions'].split()]),
                 'Topic :: Scientific/Engineering :: Artificial Intelligence', 'Topic :: Scientific/Engineering :: Image Processing', 'Typing :: Typed'],
    python_requires=f'>={cfg["min_python"]}', install_requires=reqs('requirements'), extras_require=extras,
    packages=[*find_packages(include=['sr_fastai', 'sr_fastai.*']), 'sr_fastai.csrc'], package_dir={'sr_fastai.csrc': 'csrc'},
    package_data={'sr_fastai': ['py.typed', 'assets/**/*'], 'sr_fastai.csrc': ['*']}, exclude_package_data={'': ['**/__pycache__/*']}, include_package_data=False,
    entry_points={'console_scripts': reqs('console_scripts'), 'nbdev': [f'{cfg["lib_name"]}={cfg["lib_name"]}._modidx:d']},
    zip_safe=False)
