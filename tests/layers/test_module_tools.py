"""Tools that average, load, offload or fill a module tensor by tensor leave every layer right."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.testing import assert_close

import momentumrnn

LAYERS = {
    "LSTM": (momentumrnn.LSTM, {}),
    "MomentumLSTM": (momentumrnn.MomentumLSTM, {}),
    "MomentumLSTM, learned": (momentumrnn.MomentumLSTM, {"learnable": True, "num_layers": 2}),
    "AdamLSTM, learned": (momentumrnn.AdamLSTM, {"learnable": "channel"}),
    "ExpRNN": (momentumrnn.ExpRNN, {}),
    "MomentumDTRIV": (momentumrnn.MomentumDTRIV, {"rebase_every": 1}),
    "MomentumDTRIV, learned": (momentumrnn.MomentumDTRIV, {"learnable": True, "bidirectional": True}),
}
every_layer = pytest.mark.parametrize("name", LAYERS)
x = torch.randn(12, 3, 5, generator=torch.Generator().manual_seed(0))


def make(name):
    kind, options = LAYERS[name]
    return kind(5, 7, **options)


def trained(name):
    """A layer whose coefficients and base are no longer at their start."""
    layer = make(name)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        layer(x)[0].square().mean().backward()
        optimizer.step()
    return layer


def output(layer):
    with torch.no_grad():
        return layer(x)[0]


@every_layer
def test_an_average_over_a_constant_layer_is_that_layer(name):
    layer = trained(name)
    average = AveragedModel(layer, multi_avg_fn=get_ema_multi_avg_fn(0.9999), use_buffers=True)
    for _ in range(200):
        average.update_parameters(layer)
    assert torch.equal(output(average), output(layer))


def test_an_average_over_changing_bases_is_orthogonal():
    torch.manual_seed(0)
    layer = momentumrnn.DTRIV(5, 16, rebase_every=1)
    average = AveragedModel(layer, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.3)
    for _ in range(50):
        optimizer.zero_grad()
        (layer(x)[0] * torch.randn(16)).sum().backward()
        optimizer.step()
        average.update_parameters(layer)
    # What is saved is right as well, though nothing has called the average yet.
    base = average.module.state_dict()["orthogonal_l0.base"]
    assert_close(base.t() @ base, torch.eye(16))
    other = momentumrnn.DTRIV(5, 16, rebase_every=1)
    other.load_state_dict(average.module.state_dict())
    assert torch.equal(output(other), output(average))
    u = average.module.weight_hh_l0
    assert_close(u.t() @ u, torch.eye(16))


def test_a_base_that_nothing_can_mend_is_refused():
    layer = momentumrnn.ExpRNN(5, 7)
    for spoilt in (torch.ones(7, 7), torch.full((7, 7), float("nan"))):
        layer.orthogonal_l0.base.copy_(spoilt)
        with pytest.raises(momentumrnn.errors.InputError, match="orthogonal base"):
            layer(x)


@pytest.mark.parametrize("assign", [False, True])
def test_a_base_that_is_not_orthogonal_is_not_loaded(assign):
    layer = momentumrnn.DTRIV(5, 7)
    before = output(layer)
    state = layer.state_dict() | {"orthogonal_l0.base": torch.ones(7, 7)}
    with pytest.raises(
        RuntimeError, match=r"orthogonal_l0\.base to be an orthogonal matrix, got .* off by 7"
    ):
        layer.load_state_dict(state, assign=assign)
    assert torch.equal(output(layer), before)


@every_layer
def test_memory_that_was_never_written(name):
    layer = make(name).to("meta").to_empty(device="cpu")
    for tensor in (*layer.parameters(), *layer.buffers()):
        tensor.data.fill_(float("nan") if tensor.is_floating_point() else 10**9)
    layer.reset_parameters()
    torch.manual_seed(1)
    layer.reset_parameters()
    other = make(name)
    torch.manual_seed(1)
    other.reset_parameters()
    assert torch.equal(output(layer), output(other))


@every_layer
@pytest.mark.parametrize("assign", [False, True])
def test_a_checkpoint_into_a_layer_without_memory(name, assign):
    source = trained(name)
    layer = make(name).to("meta")
    if not assign:
        layer = layer.to_empty(device="cpu")
    layer.load_state_dict(source.state_dict(), assign=assign)
    assert torch.equal(output(layer), output(source))


def test_steps_that_something_else_has_written_are_counted_on():
    layer = momentumrnn.DTRIV(5, 7, rebase_every=4)
    matrix = layer.orthogonal_l0
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)

    def step():
        layer(x)[0].sum().backward()
        optimizer.step()

    step()
    # As loaders that fill a module tensor by tensor do, without load_state_dict.
    matrix.steps.fill_(6)
    step()
    assert int(matrix.changes) == 0
    step()
    assert (int(matrix.steps), int(matrix.changes)) == (8, 1)


@every_layer
def test_accelerate_offloads(name):
    accelerate = pytest.importorskip("accelerate")
    layer = trained(name)
    offloaded = accelerate.cpu_offload(
        copy.deepcopy(layer), execution_device=torch.device("cpu"), offload_buffers=True
    )
    assert all(parameter.is_meta for parameter in offloaded.parameters())
    assert_close(output(offloaded), output(layer), rtol=1e-5, atol=1e-5)


@every_layer
@pytest.mark.parametrize("buffers", [False, True])
def test_accelerate_makes_empty_layers_and_fills_them(name, buffers):
    accelerate = pytest.importorskip("accelerate")
    layer = trained(name)
    with accelerate.init_empty_weights(include_buffers=buffers):
        assigned, filled = make(name), make(name)
    assert all(parameter.is_meta for parameter in filled.parameters())
    assigned.load_state_dict(layer.state_dict(), assign=True)
    assert torch.equal(output(assigned), output(layer))
    for key, value in layer.state_dict().items():
        accelerate.utils.set_module_tensor_to_device(filled, key, "cpu", value=value)
    assert_close(output(filled), output(layer))


def pretrained(kind):
    transformers = pytest.importorskip("transformers")

    class Config(transformers.PretrainedConfig):
        model_type = "one_layer"

        def __init__(self, kind="torch", **options):
            self.kind = kind
            super().__init__(**options)

    class Model(transformers.PreTrainedModel):
        config_class = Config

        def __init__(self, config):
            super().__init__(config)
            self.layer = nn.LSTM(5, 7) if config.kind == "torch" else make(config.kind)
            self.post_init()

        def _init_weights(self, module):
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()

        def forward(self, x):
            return self.layer(x)

    return Model, Config, Model(Config(kind=kind))


@every_layer
def test_transformers_load_what_they_saved(name, tmp_path):
    kind, _, model = pretrained(name)
    model.layer.load_state_dict(trained(name).state_dict())
    model.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path)
    assert_close(output(loaded), output(model))


@pytest.mark.parametrize("name", ["MomentumLSTM", "AdamLSTM, learned"])
def test_transformers_load_a_plain_checkpoint_into_a_layer_with_a_rule(name, tmp_path):
    kind, config, plain = pretrained("torch")
    plain.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path, config=config(kind=name))
    expected = make(name)
    expected.load_state_dict(plain.layer.state_dict(), strict=False)
    assert torch.equal(output(loaded), output(expected))
