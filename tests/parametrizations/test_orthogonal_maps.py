"""The maps onto the orthogonal group against independent float64 arithmetic."""

import math

import pytest
import scipy.linalg
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from momentumrnn.parametrizations import Orthogonal, cayley, exponential, skew_matrix
from momentumrnn.parametrizations.maps import MAPS

SIZES = [1, 2, 3, 5, 8, 33]


def random_skew(size, scale=1.0, dtype=torch.float64):
    matrix = scale * torch.randn(size, size, dtype=dtype)
    return matrix - matrix.t()


def by_series(matrix):
    """e^X as the plain sum, of a fraction small enough for it to converge at once, and squared back."""
    halvings = 12
    term = result = torch.eye(matrix.shape[0], dtype=torch.float64)
    for k in range(1, 20):
        term = term @ matrix / 2**halvings / k
        result = result + term
    for _ in range(halvings):
        result = result @ result
    return result


@pytest.mark.parametrize("scale", [0.0, 1e-3, 0.1, 1.0, 7.0])
@pytest.mark.parametrize("size", SIZES)
def test_the_exponential(size, scale):
    skew = random_skew(size, scale)
    expected = torch.from_numpy(scipy.linalg.expm(skew.numpy()))
    assert_close(exponential(skew), expected, rtol=1e-9, atol=1e-11)
    assert_close(exponential(skew), by_series(skew), rtol=1e-7, atol=1e-8)
    assert_close(exponential(skew.float()).double(), expected, rtol=0, atol=2e-5 * max(1.0, scale))


@pytest.mark.parametrize("scale", [0.0, 1.0, 7.0])
@pytest.mark.parametrize("size", SIZES)
def test_the_cayley_map(size, scale):
    skew = random_skew(size, scale)
    one = torch.eye(size, dtype=torch.float64)
    assert_close(cayley(skew), torch.linalg.inv(one + skew) @ (one - skew), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", MAPS)
def test_rotations_come_out_and_zero_is_the_identity_to_the_bit(name):
    for size in SIZES:
        rotation = MAPS[name](random_skew(size))
        one = torch.eye(size, dtype=torch.float64)
        assert_close(rotation @ rotation.t(), one, rtol=0, atol=1e-13)
        assert_close(torch.linalg.det(rotation), torch.ones((), dtype=torch.float64))
        for dtype in (torch.float32, torch.float64):
            assert torch.equal(MAPS[name](torch.zeros(size, size, dtype=dtype)), one.to(dtype))


def test_an_angle_comes_out_as_it_went_in():
    angle = 0.7
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    assert_close(exponential(torch.tensor([[0.0, angle], [-angle, 0.0]])), turn)
    # scoRNN's: entry -tan(θ / 2) for the angle θ.
    entry = -math.tan(angle / 2)
    assert_close(cayley(torch.tensor([[0.0, entry], [-entry, 0.0]])), turn)


@pytest.mark.parametrize("scale", [0.01, 1.0, 4.0])
@pytest.mark.parametrize("name", MAPS)
def test_gradients_of_the_entries(name, scale):
    matrix = Orthogonal(4, map=name, dtype=torch.float64)
    entries = (scale * torch.randn(6, dtype=torch.float64)).requires_grad_()

    def run(entries):
        return matrix.base @ MAPS[name](skew_matrix(entries, matrix.places, 4))

    assert gradcheck(run, entries)
    assert gradgradcheck(run, entries)


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_and_mapped_it_is_the_same(dtype, scale):
    skews = torch.stack([random_skew(6, scale, dtype), 0.1 * random_skew(6, scale, dtype)])
    expected = torch.stack([torch.linalg.matrix_exp(skew.double()) for skew in skews])
    atol = (2e-6 if dtype == torch.float32 else 1e-14) * max(1.0, 4 * scale)
    compiled = torch.compile(exponential, backend="eager", fullgraph=True)
    for got in (
        torch.stack([exponential(skew) for skew in skews]),
        torch.stack([compiled(skew) for skew in skews]),
        torch.func.vmap(exponential)(skews),
    ):
        assert_close(got.double(), expected, rtol=0, atol=atol)


def test_the_exponential_has_the_derivative_of_torch():
    skew = random_skew(6, 2.0)
    weight = torch.randn(6, 6, dtype=torch.float64)
    found = []
    for function in (exponential, torch.linalg.matrix_exp):
        point = skew.clone().requires_grad_()
        found.append(torch.autograd.grad((function(point) * weight).sum(), point)[0])
    assert_close(*found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_stays_visible(value):
    skew = torch.tensor([[0.0, value], [-value, 0.0]])
    assert not exponential(skew).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_norm_of_more_than_64_bits_is_no_error(dtype):
    """It is that of a run that diverges; what comes out means nothing, and training says so."""
    skew = torch.tensor([[0.0, 1e25], [-1e25, 0.0]], dtype=dtype)
    assert exponential(skew).shape == (2, 2)


def test_entries_stand_row_by_row():
    places = torch.tensor([1, 2, 5])
    expected = torch.tensor([[0.0, 1.0, 2.0], [-1.0, 0.0, 3.0], [-2.0, -3.0, 0.0]])
    assert torch.equal(skew_matrix(torch.tensor([1.0, 2.0, 3.0]), places, 3), expected)
    assert torch.equal(Orthogonal(3).places, places)


def test_the_exported_exponential_is_made_of_what_other_runtimes_know():
    class Exponential(torch.nn.Module):
        def forward(self, skew):
            return exponential(skew)

    skew = torch.randn(6, 6, dtype=torch.float64) * 20
    skew = skew - skew.t()
    exported = torch.export.export(Exponential(), (skew,))
    assert "exp2" not in exported.run_decompositions().graph_module.code
    assert_close(exported.module()(skew), exponential(skew))
