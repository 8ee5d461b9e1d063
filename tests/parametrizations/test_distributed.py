"""Two processes with gradients averaged over them: the same base in both, at the same steps."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from momentumrnn import MomentumDTRIV

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")


def train(rank, world, folder):
    torch.set_num_threads(1)
    # Both start apart: the wrapper has to make them alike.
    torch.manual_seed(rank)
    layer = MomentumDTRIV(3, 6, rebase_every=3)
    x = torch.randn(4, 7, 2, 3, generator=torch.Generator().manual_seed(5))
    model = layer
    if world > 1:
        store = f"file://{folder}/store"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
        model = DistributedDataParallel(layer)
        x = x[:, :, rank : rank + 1]
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-2)
    for step in range(8):
        optimizer.zero_grad()
        model(x[step % 4])[0].square().mean().backward()
        optimizer.step()
    torch.save(layer.state_dict(), Path(folder) / f"{world}-{rank}.pt")
    if world > 1:
        dist.destroy_process_group()


def test_all_ranks_alike(tmp_path):
    mp.spawn(train, (2, str(tmp_path)), nprocs=2)
    train(0, 1, str(tmp_path))
    first, second, alone = (
        torch.load(tmp_path / name, weights_only=True) for name in ("2-0.pt", "2-1.pt", "1-0.pt")
    )
    assert int(first["orthogonal_l0.steps"]) == 8
    assert int(first["orthogonal_l0.changes"]) == 2
    for name in first:
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], alone[name], rtol=1e-3, atol=1e-5)
