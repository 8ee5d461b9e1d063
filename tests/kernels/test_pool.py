"""The memory that the C++ kernels keep: used again, bounded, given back, and never before its last tensor."""

import gc
import itertools
import os
import subprocess
import sys
import threading
import weakref

import pytest
import torch

from cases import make_layer
from momentumrnn import backend
from momentumrnn.kernels import operators
from momentumrnn.kernels.extension import extension, missing
from momentumrnn.kernels.plan import forced

pytestmark = pytest.mark.skipif(extension() is None, reason=str(missing()))

PAGE = 2 << 20  # sizes are rounded up to whole huge pages
LARGE = (8 << 20) // 4  # the elements of a float32 tensor of 8 MiB


@pytest.fixture
def pool():
    """The kernels, with nothing idle, and all as it was afterwards."""
    kernels = extension()
    gc.collect()
    cap = kernels.pool()[2]
    kernels.empty_pool()
    yield kernels
    kernels.set_pool_cap(cap)
    kernels.empty_pool()


def in_use(kernels):
    return kernels.pool()[0]


def idle(kernels):
    return kernels.pool()[1]


def make(kernels, elements=LARGE, float64=False):
    return kernels.empty([elements], float64)


def test_a_tensor_of_the_pool_is_a_tensor_like_any_other(pool):
    before = in_use(pool)
    for float64 in (False, True):
        tensor = pool.empty([3, 1024, 1024], float64)
        assert type(tensor) is torch.Tensor
        assert tensor.dtype is (torch.float64 if float64 else torch.float32)
        assert tensor.shape == (3, 1024, 1024)
        assert tensor.is_contiguous()
        assert tensor.device.type == "cpu"
        assert not tensor.requires_grad
        assert tensor.data_ptr() % 64 == 0
        assert in_use(pool) - before == tensor.nbytes
        assert torch.equal(tensor.fill_(2.0) * tensor, torch.full_like(tensor, 4.0))
        del tensor
        assert in_use(pool) == before


def test_memory_is_used_again(pool):
    tensor = make(pool)
    place = tensor.data_ptr()
    del tensor
    assert idle(pool) == 4 * LARGE
    tensor = make(pool)
    assert tensor.data_ptr() == place
    assert idle(pool) == 0
    # Float64 of half as many elements is as large.
    del tensor
    assert make(pool, LARGE // 2, True).data_ptr() == place


def test_two_tensors_never_share_memory(pool):
    tensors = [make(pool).fill_(n) for n in range(4)]
    del tensors[1], tensors[1]
    tensors += [make(pool).fill_(n) for n in (4, 5, 6)]
    for tensor, n in zip(tensors, (0, 3, 4, 5, 6), strict=True):
        assert (tensor == n).all()
    places = sorted(tensor.data_ptr() for tensor in tensors)
    assert all(b - a >= 4 * LARGE for a, b in itertools.pairwise(places))


def test_a_much_larger_block_is_not_wasted_on_a_small_request(pool):
    place = make(pool, 8 * LARGE).data_ptr()
    small = make(pool)
    assert small.data_ptr() != place
    # But a little more than is needed is taken: an eighth.
    del small
    pool.empty_pool()
    place = make(pool, 8 * LARGE).data_ptr()
    assert make(pool, 8 * LARGE - LARGE // 2).data_ptr() == place


def test_of_several_blocks_the_closest_is_taken(pool):
    blocks = [make(pool, n * LARGE) for n in (9, 8, 10)]
    places = [block.data_ptr() for block in blocks]
    del blocks
    assert make(pool, 8 * LARGE).data_ptr() == places[1]
    assert make(pool, 9 * LARGE).data_ptr() == places[0]


def test_small_requests_are_not_pooled(pool):
    before = pool.pool()
    tensors = [make(pool, 1000), make(pool, (1 << 18) - 1), pool.empty([], False), pool.empty([0], True)]
    assert pool.pool() == before
    for tensor in tensors:
        tensor.fill_(1.0)
    del tensors, tensor
    assert pool.pool() == before
    make(pool, 1 << 18)
    assert idle(pool) == PAGE


def test_the_operators_take_large_tensors_from_the_pool_and_small_ones_from_torch(pool):
    before = in_use(pool)
    like = torch.zeros(1)
    small = operators.empty((511, 512), like)
    assert in_use(pool) == before
    assert small.shape == (511, 512)
    large = operators.empty((512, 512), like)
    assert in_use(pool) - before == PAGE
    wide = operators.empty((512, 256), like.double())
    assert in_use(pool) - before == 2 * PAGE
    assert (large.dtype, wide.dtype) == (torch.float32, torch.float64)


def test_no_more_than_the_cap_lies_idle(pool):
    pool.set_pool_cap(20 << 20)
    assert pool.pool()[2] == 20 << 20
    tensors = [make(pool) for _ in range(5)]
    assert idle(pool) == 0
    for left in range(4, -1, -1):
        tensors.pop()
        assert idle(pool) == min((5 - left) * 4 * LARGE, 16 << 20)
    # The oldest go first, and a lower cap takes hold at once.
    pool.set_pool_cap(9 << 20)
    assert idle(pool) == 8 << 20
    pool.set_pool_cap(0)
    assert idle(pool) == 0
    make(pool)
    assert idle(pool) == 0


def test_the_oldest_goes_first(pool):
    tensors = [make(pool) for _ in range(3)]
    places = [tensor.data_ptr() for tensor in tensors]
    for _ in range(3):
        tensors.pop(0)
    pool.set_pool_cap(8 << 20)
    assert make(pool).data_ptr() == places[2]


def test_the_pool_never_outgrows_its_own_peak(pool):
    """Blocks of another size are given back before new memory is taken."""
    peak, live = in_use(pool), []
    for sizes in ([4], [5], [9], [6, 2], [3, 3, 3], [10], [1] * 11, [8, 5]):
        for n in sizes:
            live.append(make(pool, n * LARGE))
            peak = max(peak, in_use(pool))
            assert sum(pool.pool()[:2]) <= peak
        while live:
            live.pop()
            assert sum(pool.pool()[:2]) <= peak


def test_emptying_gives_back_what_is_idle_and_nothing_else(pool):
    before = in_use(pool)
    kept, gone = make(pool).fill_(7.0), make(pool)
    del gone
    pool.empty_pool()
    assert pool.pool()[:2] == (before + 4 * LARGE, 0)
    others = [make(pool).fill_(1.0) for _ in range(3)]
    assert (kept == 7.0).all()
    del kept, others
    assert in_use(pool) == before
    assert idle(pool) > 0


def test_a_view_keeps_the_memory(pool):
    before = in_use(pool)
    tensor = make(pool)
    view = tensor.view(-1, 4)[5:7, 1].detach()
    view.fill_(3.0)
    del tensor
    gc.collect()
    assert in_use(pool) == before + 4 * LARGE
    make(pool).fill_(0.0)
    pool.empty_pool()
    assert view.tolist() == [3.0, 3.0]
    del view
    assert in_use(pool) == before


def test_numpy_keeps_the_memory(pool):
    numpy = pytest.importorskip("numpy")
    before = in_use(pool)
    array = make(pool).fill_(3.0).numpy()
    gc.collect()
    make(pool).fill_(0.0)
    assert in_use(pool) == before + 4 * LARGE
    assert numpy.all(array == 3.0)
    del array
    gc.collect()
    assert in_use(pool) == before


def test_the_results_of_a_layer_outlive_the_emptying(pool):
    layer = make_layer("lstm", "none", input_size=1, hidden_size=128).float()
    x = torch.randn(100, 32, 1)
    before = in_use(pool)
    with backend("cpu"), torch.no_grad():
        output, _ = layer(x)
        assert in_use(pool) - before >= output.nbytes >= 1 << 20
        copy = output.clone()
        pool.empty_pool()
        layer(x + 1)
        pool.empty_pool()
        assert torch.equal(output, copy)
    del output
    assert in_use(pool) == before


def test_a_graph_keeps_what_its_backward_pass_reads(pool):
    layer = make_layer("lstm", "adam", input_size=1, hidden_size=128).float()
    x = torch.randn(100, 32, 1)
    with backend("cpu"):
        layer(x)[0].square().sum().backward()
        expected = layer.weight_hh_l0.grad.clone()
        layer.zero_grad()
        loss = layer(x)[0].square().sum()
        pool.empty_pool()
        with torch.no_grad():
            layer(torch.randn(100, 32, 1))
        loss.backward()
    assert torch.equal(layer.weight_hh_l0.grad, expected)


@pytest.mark.parametrize(
    ("cell", "rule"), [("gru", "none"), ("lstm", "heavy_ball"), ("lstm", "adam"), ("rnn_modrelu", "rmsprop")]
)
def test_training_holds_no_more_after_fifty_steps_than_after_three(cell, rule, pool):
    layer = make_layer(cell, rule, input_size=1, hidden_size=64).float()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3)
    x = torch.randn(130, 32, 1)
    before, held = in_use(pool), []
    with backend("cpu"):
        for _ in range(50):
            optimizer.zero_grad()
            layer(x)[0].square().mean().backward()
            optimizer.step()
            held.append(pool.pool()[:2])
    gc.collect()
    assert in_use(pool) == before
    assert held[0][1] > 0, "nothing was large enough to be pooled"
    assert len(set(held[3:])) == 1


def test_the_scratch_memory_of_a_call_goes_back(pool):
    """Also that of calls which share out their work, and of ones without a result worth pooling."""
    layer = make_layer("lstm", "none", input_size=1, hidden_size=255).float()
    before = in_use(pool)
    for split in ("rows", "units"):
        with backend("cpu"), forced(split, True, 2):
            layer(torch.randn(3, 4, 1))[0].sum().backward()
        assert in_use(pool) == before
    assert idle(pool) > 0


def test_an_exception_in_the_caller_leaks_nothing(pool):
    layer = make_layer("lstm", "none", input_size=1, hidden_size=128).float()
    before = in_use(pool)

    def train():
        output = layer(torch.randn(100, 32, 1))[0]
        assert in_use(pool) > before
        output.register_hook(lambda slope: 1 / 0)
        output.sum().backward()

    with backend("cpu"), pytest.raises(ZeroDivisionError):
        train()
    gc.collect()
    assert in_use(pool) == before


def test_threads_take_and_give_back_at_the_same_time(pool):
    before, wrong = in_use(pool), []

    def work(n):
        for k in range(40):
            tensor = make(pool, LARGE // 8 + 1000 * (k % 5))
            tensor[::4096].fill_(n)
            other = make(pool, LARGE // 4)
            other[::4096].fill_(-n)
            if not ((tensor[::4096] == n).all() and (other[::4096] == -n).all()):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong
    assert in_use(pool) == before


def test_a_tensor_may_be_given_back_by_another_thread(pool):
    before = in_use(pool)
    box = [make(pool)]
    gone = weakref.ref(box[0])
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join(60)
    assert gone() is None
    assert in_use(pool) == before


def test_more_than_there_is_raises_and_breaks_nothing(pool):
    before = pool.pool()
    with pytest.raises(MemoryError):
        pool.empty([1 << 60], False)
    assert pool.pool()[0] == before[0]
    assert make(pool).fill_(1.0).sum() == LARGE


def test_what_there_was_no_memory_for_is_no_peak(pool):
    with pytest.raises(MemoryError):
        pool.empty([1 << 45], False)
    for n in range(1, 9):
        make(pool, n * LARGE)
    assert idle(pool) == 8 * LARGE * 4


AT_THE_END = """
import torch
from momentumrnn.kernels.extension import extension

class Last:
    def __init__(self, tensor):
        self.tensor = tensor

    def __del__(self):
        assert (self.tensor == 1.0).all()
        print("gone")

kept = Last(extension().empty([1 << 21], False).fill_(1.0))
torch.kept = Last(extension().empty([1 << 21], False).fill_(1.0))
cycle = [kept]
cycle.append(cycle)
"""


def test_tensors_may_live_until_the_interpreter_ends():
    run = subprocess.run(
        [sys.executable, "-c", AT_THE_END],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "Error" not in run.stderr
    assert "gone" in run.stdout
