"""The sizes that are measured: T time steps, B sequences, d features, h hidden units."""

from typing import NamedTuple

from momentumrnn.cli.benchmarking.errors import BenchmarkError


class Shape(NamedTuple):
    """What decides the cost of a recurrent layer.

    Attributes:
        T: Time steps.
        B: Sequences in the batch.
        d: Features of the input.
        h: Hidden units.
    """

    T: int
    B: int
    d: int
    h: int

    def __str__(self) -> str:
        return "x".join(map(str, self))


# Those of the paper's runs: permuted MNIST, a long sequence of ten features, permuted MNIST with h = 256,
# TIMIT, scikit-learn's digits, Penn treebank with the AWD-LSTM's sizes, and one sequence alone.
DEFAULT = (
    Shape(784, 128, 1, 128),
    Shape(2020, 128, 10, 128),
    Shape(784, 128, 1, 256),
    Shape(100, 32, 129, 158),
    Shape(64, 64, 1, 128),
    Shape(70, 20, 400, 1150),
    Shape(784, 1, 1, 256),
)
# And those at which the GPU is held to cuDNN.
DEFAULT_ON_CUDA = (*DEFAULT, Shape(784, 128, 1, 512), Shape(784, 128, 1, 1150))
QUICK = (Shape(32, 8, 1, 32), Shape(16, 4, 9, 24))

# Along T the batch is small, so that 20,000 steps of every model fit in a few gigabytes.
SWEEPS: dict[str, tuple[Shape, ...]] = {
    "T": tuple(Shape(T, 8, 1, 128) for T in (100, 200, 500, 1000, 2000, 5000, 10000, 20000)),
    "B": tuple(Shape(200, B, 1, 128) for B in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)),
    "h": tuple(Shape(100, 32, 1, h) for h in (16, 32, 64, 128, 256, 512, 1024)),
}
QUICK_SWEEPS: dict[str, tuple[Shape, ...]] = {
    "T": tuple(Shape(T, 2, 1, 8) for T in (10, 20, 40)),
    "B": tuple(Shape(10, B, 1, 8) for B in (1, 2, 4)),
    "h": tuple(Shape(10, 2, 1, h) for h in (4, 8, 16)),
}


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """Read shapes.

    Args:
        text: Such as ``784x128x1x128,64x64x1x128``.

    Returns:
        Each shape once, in the order given.

    Raises:
        BenchmarkError: A part of the text is no shape.

    Example:
        >>> parse_shapes("784x128x1x256")
        (Shape(T=784, B=128, d=1, h=256),)
    """
    return tuple(dict.fromkeys(_parse(part.strip()) for part in text.split(",")))


def _parse(part: str) -> Shape:
    sizes = part.lower().split("x")
    if len(sizes) != 4 or not all(size.isdecimal() and len(size) < 10 and int(size) > 0 for size in sizes):
        raise BenchmarkError(
            "--shapes: expected TxBxdxh, four whole numbers from 1, below 10⁹, several separated by commas, "
            f"such as 784x128x1x128,64x64x1x128; got {part!r}"
        )
    return Shape(*map(int, sizes))
