"""The initialisation of the paper's LSTMs."""

import torch
from torch import nn

from momentumrnn.errors import RecipeError
from momentumrnn.tasks.stack import LayerStack

GATES = 4
FORGET = 1


@torch.no_grad()
def initialise_as_paper(layer: nn.Module, forget_bias: float = 1.0) -> None:
    """Initialise an LSTM as the paper does.

    W is orthogonal; U is zero but for the identity in its first h rows, the input gate's block; the biases
    are zero but for the forget gate's, which are ``forget_bias`` in ``bias_ih`` and ``bias_hh`` both.

    Args:
        layer: An LSTM with any rule, or a stack of them; its parameters are changed in place.
        forget_bias: 1 on MNIST, −4 on TIMIT.

    Raises:
        RecipeError: The layer has no four gates.
    """
    if isinstance(layer, LayerStack):
        for part in layer.layers:
            initialise_as_paper(part, forget_bias)
        return
    hidden_size = int(getattr(layer, "hidden_size", 0))
    if not any(name.startswith("weight_hh") for name, _ in layer.named_parameters()):
        raise RecipeError(
            f'model.init = "paper" is defined for an LSTM of four gates, got {type(layer).__name__}; '
            'use init = "default"'
        )
    for name, parameter in layer.named_parameters():
        if name.startswith("weight_ih"):
            nn.init.orthogonal_(parameter)
        elif name.startswith("weight_hh"):
            if parameter.shape != (GATES * hidden_size, hidden_size):
                raise RecipeError(
                    'model.init = "paper" is defined for an LSTM of four gates, expected weight_hh of shape '
                    f"{(GATES * hidden_size, hidden_size)}, got {tuple(parameter.shape)}; "
                    'use init = "default"'
                )
            nn.init.zeros_(parameter)
            nn.init.eye_(parameter[:hidden_size])
        elif name.startswith("bias_"):
            nn.init.zeros_(parameter)
            # With the velocity in hidden space bias_ih has h entries and reaches no single gate.
            if len(parameter) == GATES * hidden_size:
                parameter[FORGET * hidden_size : (FORGET + 1) * hidden_size] = forget_bias
