"""What happens inside a layer while it learns: gradients of hidden states, Jacobians, the spectrum of U."""

from momentumrnn.analysis.hidden_gradients import HiddenGradientNorms, hidden_gradient_norms
from momentumrnn.analysis.history import GradientHistory
from momentumrnn.analysis.jacobians import state_jacobian_singular_values
from momentumrnn.analysis.plots import plot_gradient_norms, plot_singular_values, plot_spectrum
from momentumrnn.analysis.recurrence import recurrence_spectrum

__all__ = [
    "GradientHistory",
    "HiddenGradientNorms",
    "hidden_gradient_norms",
    "plot_gradient_norms",
    "plot_singular_values",
    "plot_spectrum",
    "recurrence_spectrum",
    "state_jacobian_singular_values",
]
