import pytest
import torch

from momentumrnn.training import Recipe, load_recipe


@pytest.fixture(autouse=True)
def one_thread():
    """Bit for bit equality is promised for one and the same number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny() -> Recipe:
    """Two stacked layers with dropout, so that a random state not restored is seen at once."""
    return load_recipe("digits-momentum-lstm").override(
        [
            "model.hidden_size=4",
            "model.num_layers=2",
            "model.dropout=0.3",
            "training.epochs=3",
            "training.batch_size=256",
        ]
    )
