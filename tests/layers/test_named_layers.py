"""The paper's names: what they say of their arguments."""

import inspect
from typing import get_type_hints

import pytest
import torch

import momentumrnn
from momentumrnn.layers import arguments

NAMED = {
    "MomentumRNN": "RNN",
    "MomentumGRU": "GRU",
    "MomentumLSTM": "LSTM",
    "NAGLSTM": "LSTM",
    "SRLSTM": "LSTM",
    "AdamLSTM": "LSTM",
    "RMSPropLSTM": "LSTM",
    "ExpRNN": "OrthogonalRNN",
    "DTRIV": "OrthogonalRNN",
    "MomentumDTRIV": "OrthogonalRNN",
    "AdamDTRIV": "OrthogonalRNN",
    "RMSPropDTRIV": "OrthogonalRNN",
    "SRDTRIV": "OrthogonalRNN",
}
NOT_TAKEN = {"ExpRNN": {"map", "rebase_every"}}


def names_of(layer):
    return list(inspect.signature(getattr(momentumrnn, layer)).parameters)


@pytest.mark.parametrize(("name", "base"), NAMED.items())
def test_the_signature_is_the_rule_s_and_the_layer_s(name, base):
    named, plain = names_of(name), names_of(base)
    expected = [each for each in plain if each not in {"rule"} | NOT_TAKEN.get(name, set())]
    assert [each for each in named if each in plain] == sorted(expected, key=named.index)
    positional = expected[: expected.index("dtype") + 1]
    assert named[: len(positional)] == positional
    assert "kwargs" not in named
    made = torch.nn.utils.skip_init(getattr(momentumrnn, name), 3, 4)
    assert made.hidden_size == 4


@pytest.mark.parametrize(
    ("base", "typed"),
    [
        ("RNN", arguments.RNNArguments),
        ("GRU", arguments.GRUArguments),
        ("LSTM", arguments.LSTMArguments),
        ("OrthogonalRNN", arguments.OrthogonalArguments),
    ],
)
def test_type_checkers_see_the_arguments_that_there_are(base, typed):
    hints, own = get_type_hints(typed), get_type_hints(getattr(momentumrnn, base).__init__)
    wanted = {name for name in names_of(base) if name not in ("rule", "rebase_every")}
    assert hints == {name: own[name] for name in wanted}
