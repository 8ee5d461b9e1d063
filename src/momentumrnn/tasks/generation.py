"""Text drawn from a language model, word by word."""

from collections.abc import Iterator, Sequence

import torch

from momentumrnn.errors import InputError
from momentumrnn.tasks.language_model import LanguageModel, LanguageOutputs


@torch.no_grad()
def draw_words(
    model: LanguageModel, read: Sequence[int], count: int, temperature: float, seed: int
) -> Iterator[int]:
    """Draw words, each from what the model says after all those before it.

    Args:
        model: The model; it is set to evaluation.
        read: The words it reads first, one or more.
        count: How many to draw.
        temperature: What the logits are divided by: below 1 the likely words become likelier.
        seed: Which words; the same one always gives the same ones.

    Raises:
        InputError: The model's logits are not finite.
    """
    model.eval()
    device = model.embedding.weight.device
    random = torch.Generator().manual_seed(seed)
    words, state = list(read), None
    for _ in range(count):
        outputs, state = model(torch.tensor(words, device=device).unsqueeze(1), state)
        assert isinstance(outputs, LanguageOutputs)
        logits = outputs.logits[-1, 0].double().cpu()
        if not logits.isfinite().all():
            raise InputError(
                "expected finite logits, got NaN or infinity: the weights of the model have diverged or are "
                "damaged; generate from another run"
            )
        # The largest is 0 then, however small the temperature.
        scaled = (logits - logits.max()) / temperature
        drawn = torch.multinomial(torch.softmax(scaled, dim=0), 1, generator=random)
        words = drawn.tolist()
        yield words[0]
