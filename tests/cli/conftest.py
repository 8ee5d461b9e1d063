import pytest
import torch


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """No test writes into the folder the tests are started in, or finds the machine's data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MOMENTUMRNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
