"""Layers sharded over two processes by FSDP2 train as one does."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.testing import assert_close

import momentumrnn
from momentumrnn import rules

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")

LAYERS = {
    "plain": lambda: momentumrnn.LSTM(3, 6),
    "fixed": lambda: momentumrnn.MomentumGRU(3, 6),
    "learned": lambda: momentumrnn.MomentumLSTM(3, 6, num_layers=2, learnable=True),
    "learned, adaptive": lambda: momentumrnn.AdamLSTM(3, 6, learnable=True),
    "by channel": lambda: momentumrnn.AdamLSTM(3, 6, bidirectional=True, learnable="channel"),
    "hidden": lambda: momentumrnn.LSTM(
        3, 6, rule=rules.HeavyBall(0.5, 1.0, velocity="hidden", learnable=True)
    ),
    "orthogonal": lambda: momentumrnn.ExpRNN(3, 6),
    "base of each step": lambda: momentumrnn.MomentumDTRIV(3, 6, rebase_every=1, learnable=True),
    "base of each third step": lambda: momentumrnn.RMSPropDTRIV(3, 6, rebase_every=3),
}


def train(model, x, columns):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for batch in x:
        optimizer.zero_grad()
        model(batch[:, columns])[0].square().mean().backward()
        optimizer.step()


def shard(rank, folder, every_module):
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    mesh = dist.init_device_mesh("cpu", (2,))
    x = torch.randn(6, 7, 2, 3, generator=torch.Generator().manual_seed(5))
    for name, make in LAYERS.items():
        torch.manual_seed(0)
        model = nn.Sequential(make())
        alone = copy.deepcopy(model)
        for module in (*model[0].children(), model[0]) if every_module else ():
            if list(module.parameters()):
                fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)
        train(model, x, slice(rank, rank + 1))
        train(alone, x, slice(None))
        for key, value in model.state_dict().items():
            whole = value.full_tensor() if hasattr(value, "full_tensor") else value
            assert_close(
                whole, alone.state_dict()[key], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
            )
    (Path(folder) / f"done-{rank}").touch()
    dist.destroy_process_group()


@pytest.mark.parametrize("every_module", [False, True])
def test_two_processes_train_as_one(tmp_path, every_module):
    mp.spawn(shard, (str(tmp_path), every_module), nprocs=2)
    assert sorted(path.name for path in tmp_path.glob("done-*")) == ["done-0", "done-1"]
