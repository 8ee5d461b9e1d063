"""What a user imports: RNN, LSTM, GRU, their single-step cells, and the paper's names."""

from momentumrnn.layers.cells import GRUCell, LSTMCell, RNNCell
from momentumrnn.layers.explain import explain
from momentumrnn.layers.gru import GRU
from momentumrnn.layers.lstm import LSTM
from momentumrnn.layers.named import (
    NAGLSTM,
    SRLSTM,
    AdamLSTM,
    MomentumGRU,
    MomentumLSTM,
    MomentumRNN,
    RMSPropLSTM,
)
from momentumrnn.layers.rnn import RNN

__all__ = [
    "GRU",
    "LSTM",
    "NAGLSTM",
    "RNN",
    "SRLSTM",
    "AdamLSTM",
    "GRUCell",
    "LSTMCell",
    "MomentumGRU",
    "MomentumLSTM",
    "MomentumRNN",
    "RMSPropLSTM",
    "RNNCell",
    "explain",
]
