"""Norms over the iterations of a training run: recorded, written, read, gone on with, drawn."""

import xml.etree.ElementTree as ElementTree

import matplotlib.image
import pytest
import safetensors.torch
import torch
from torch.testing import assert_close

import momentumrnn
from momentumrnn.analysis import (
    GradientHistory,
    hidden_gradient_norms,
    plot_gradient_norms,
    plot_singular_values,
    plot_spectrum,
    recurrence_spectrum,
    state_jacobian_singular_values,
)
from momentumrnn.analysis.plots import gradient_norms_figure
from momentumrnn.errors import CheckpointError


def train(model, history, iterations, path=None):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for iteration in iterations:
        x = torch.randn(9, 4, 2, generator=torch.Generator().manual_seed(iteration))

        def loss(x=x):
            return model(x)[0][-1].square().mean()

        history.record(iteration, model, loss)
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        if path is not None:
            history.save(path)


def test_recording_changes_nothing_and_skips_what_is_not_due():
    one, other = momentumrnn.MomentumRNN(2, 5), momentumrnn.MomentumRNN(2, 5)
    other.load_state_dict(one.state_dict())
    history, none = GradientHistory(every=3), GradientHistory(every=100)
    train(one, history, range(8))
    train(other, none, range(1, 1))
    assert history.iterations == [0, 3, 6]
    assert history.matrix().shape == (3, 9)
    assert none.matrix().shape == (0, 0)
    train(other, none, range(8))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_run_that_goes_on_has_the_history_of_one_that_was_never_interrupted(tmp_path):
    start = momentumrnn.MomentumGRU(2, 5).state_dict()

    def fresh():
        model = momentumrnn.MomentumGRU(2, 5)
        model.load_state_dict(start)
        return model

    whole, file = GradientHistory(2, "sequence"), tmp_path / "norms.safetensors"
    train(fresh(), whole, range(10))

    model, checkpoint = fresh(), None
    train(model, GradientHistory(2, "sequence"), range(5), file)
    checkpoint = {name: value.clone() for name, value in model.state_dict().items()}
    train(
        model, GradientHistory.load(file), range(5, 8), file
    )  # all after the checkpoint is lost but the file
    model.load_state_dict(checkpoint)
    again = GradientHistory.load(file)
    assert again.iterations == [0, 2, 4, 6]
    train(model, again, range(5, 10), file)

    read = GradientHistory.load(file)
    assert (read.every, read.reduction, read.iterations) == (2, "sequence", [0, 2, 4, 6, 8])
    assert_close(read.matrix(), whole.matrix(), rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["norms.safetensors"]


def test_what_the_loss_was_and_which_reduction():
    model, x = momentumrnn.RNN(2, 5), torch.randn(9, 4, 2)

    def loss():
        return model(x)[0].sum()

    for reduction in ("batch", "sequence"):
        history = GradientHistory(reduction=reduction)
        found = history.record(0, model, loss)
        assert found.loss == pytest.approx(loss().item())
        assert torch.equal(history.norms[0], hidden_gradient_norms(model, loss).reduce(reduction))


def test_batches_of_different_lengths(tmp_path):
    history = GradientHistory(iterations=[0, 1], norms=[torch.ones(3).double(), torch.ones(5).double()])
    assert history.matrix().isnan().sum() == 2
    history.save(tmp_path / "a")
    assert [len(row) for row in GradientHistory.load(tmp_path / "a").norms] == [3, 5]


def test_what_is_no_history(tmp_path):
    for wrong in (0, 2.0, True):
        with pytest.raises(ValueError, match="every"):
            GradientHistory(every=wrong)
    with pytest.raises(ValueError, match="reduction"):
        GradientHistory(reduction="mean")
    with pytest.raises(FileNotFoundError):
        GradientHistory.load(tmp_path / "none")
    (tmp_path / "text").write_text("iteration,norm")
    with pytest.raises(CheckpointError, match="text: cannot be read"):
        GradientHistory.load(tmp_path / "text")
    safetensors.torch.save_file({"weight": torch.ones(2)}, tmp_path / "weights")
    with pytest.raises(CheckpointError, match="expected 'momentumrnn gradient history 1'"):
        GradientHistory.load(tmp_path / "weights")


def histories():
    steps = torch.arange(20, dtype=torch.float64)
    vanishing = GradientHistory(
        iterations=[0, 10, 20, 50], norms=[10 ** (steps - 19) * (k + 1) for k in range(4)]
    )
    kept = GradientHistory(iterations=[0, 10], norms=[torch.full((20,), 0.5).double()] * 2)
    return {"RNN": vanishing, "MomentumRNN": kept}


def test_one_colour_scale_for_all_panels(tmp_path):
    figure = gradient_norms_figure(histories(), "Fig. 2")
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["RNN", "MomentumRNN"]
    meshes = [axes.collections[0] for axes in panels]
    assert meshes[0].norm is meshes[1].norm
    assert (meshes[0].norm.vmin, meshes[0].norm.vmax) == pytest.approx((4e-12, 4.0))
    # Iterations lie where they belong, also where some were left out.
    assert meshes[0].get_coordinates()[0, :, 0].tolist() == [-5, 5, 15, 35, 65]
    assert meshes[0].get_array().shape == (20, 4)

    png, svg = plot_gradient_norms(histories(), tmp_path / "mu-0.9")
    assert (png.name, svg.name) == ("mu-0.9.png", "mu-0.9.svg")
    assert matplotlib.image.imread(png).std() > 0.05
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert svg.stat().st_size < 500_000


def test_what_vanished_is_not_what_is_missing():
    norms = [torch.tensor([0.0, 1e-300, 1.0]).double(), torch.ones(2).double()]
    mesh = (
        gradient_norms_figure({"RNN": GradientHistory(iterations=[0, 1], norms=norms)}).axes[0].collections[0]
    )
    shown = mesh.to_rgba(mesh.get_array())
    black, white = (0, 0, 0, 1), (1, 1, 1, 1)
    assert tuple(shown[0, 0]) == black
    assert tuple(shown[1, 0]) == black
    assert tuple(shown[2, 1]) == white
    assert tuple(shown[2, 0]) not in (black, white)
    assert mesh.colorbar.extend == "min"
    kept = gradient_norms_figure({"RNN": GradientHistory(iterations=[0], norms=[torch.ones(3).double()])})
    assert kept.axes[0].collections[0].colorbar.extend == "neither"


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="at least one history"):
        plot_gradient_norms({}, tmp_path / "a")
    with pytest.raises(ValueError, match="nothing was recorded in 'LSTM'"):
        plot_gradient_norms({"LSTM": GradientHistory()}, tmp_path / "a")
    with pytest.raises(ValueError, match="not zero"):
        plot_gradient_norms(
            {"LSTM": GradientHistory(1, "batch", [0], [torch.zeros(3).double()])}, tmp_path / "a"
        )
    with pytest.raises(ValueError, match="at least one"):
        plot_spectrum({}, tmp_path / "a")
    with pytest.raises(ValueError, match="at least one"):
        plot_singular_values({}, tmp_path / "a")
    with pytest.raises(ValueError, match=r"every t; got shape \(4,\)"):
        plot_singular_values({"LSTM": torch.ones(4)}, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_single_iteration_is_drawn(tmp_path):
    assert plot_gradient_norms(
        {"LSTM": GradientHistory(1, "batch", [7], [torch.ones(3).double()])}, tmp_path / "a"
    )


def test_pictures_of_what_explains_it(tmp_path):
    layers = {"RNN": momentumrnn.RNN(2, 12), "DTRIV": momentumrnn.DTRIV(2, 12)}
    x = torch.randn(15, 2)
    files = plot_spectrum(
        {name: recurrence_spectrum(layer) for name, layer in layers.items()}, tmp_path / "u"
    )
    files += plot_singular_values(
        {name: state_jacobian_singular_values(layer, x) for name, layer in layers.items()}, tmp_path / "s"
    )
    for file in files:
        if file.suffix == ".png":
            assert matplotlib.image.imread(file).std() > 0.05
        else:
            assert ElementTree.parse(file).getroot().tag.endswith("svg")
