"""Orthogonal matrices: the matrix exponential, Cayley's map, a base that changes, and how they start."""

from momentumrnn.parametrizations.groups import parameter_groups
from momentumrnn.parametrizations.initialisation import start_
from momentumrnn.parametrizations.maps import cayley, exponential, skew_matrix
from momentumrnn.parametrizations.orthogonal import Orthogonal

__all__ = ["Orthogonal", "cayley", "exponential", "parameter_groups", "skew_matrix", "start_"]
