import pytest, torch

torch.set_num_threads(1) # tiny nets: threads would only wait for each other

def pytest_collection_modifyitems(items):
    "What needs a GPU is skipped where there is none."
    if torch.cuda.is_available(): return
    for item in items:
        if 'cuda' in item.keywords: item.add_marker(pytest.mark.skip(reason='no CUDA device'))
