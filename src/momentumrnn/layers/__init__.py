"""What a user imports: RNN, LSTM, GRU, OrthogonalRNN, their single-step cells, and the paper's names."""

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
from momentumrnn.layers.named_orthogonal import (
    DTRIV,
    SRDTRIV,
    AdamDTRIV,
    ExpRNN,
    MomentumDTRIV,
    RMSPropDTRIV,
)
from momentumrnn.layers.orthogonal import OrthogonalRNN
from momentumrnn.layers.orthogonal_cell import OrthogonalRNNCell
from momentumrnn.layers.rnn import RNN

__all__ = [
    "DTRIV",
    "GRU",
    "LSTM",
    "NAGLSTM",
    "RNN",
    "SRDTRIV",
    "SRLSTM",
    "AdamDTRIV",
    "AdamLSTM",
    "ExpRNN",
    "GRUCell",
    "LSTMCell",
    "MomentumDTRIV",
    "MomentumGRU",
    "MomentumLSTM",
    "MomentumRNN",
    "OrthogonalRNN",
    "OrthogonalRNNCell",
    "RMSPropDTRIV",
    "RMSPropLSTM",
    "RNNCell",
    "explain",
]
