import os

import pytest
import torch

# The tensors here are so small that a second thread costs more than it brings.
torch.set_num_threads(1)

# Triton asks when a kernel is made. With a GPU the same tests run what it compiles.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_configure(config):
    # torch's, for its own LSTM too.
    config.addinivalue_line("filterwarnings", "ignore:LSTM with projections is not supported with oneDNN")


def pytest_collection_modifyitems(items):
    """Let the rules beyond the paper meet one cell of each kind: the others would find nothing more."""
    from cases import CELLS, FEW_CELLS, FILTER_RULES

    def finds_nothing_more(item):
        values = item.callspec.params.values() if hasattr(item, "callspec") else ()
        names = {value for value in values if isinstance(value, str)}
        return bool(names & set(FILTER_RULES)) and bool(names & (set(CELLS) - set(FEW_CELLS)))

    items[:] = [item for item in items if not finds_nothing_more(item)]


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(0)
