"""What goes wrong before anything is measured."""


class BenchmarkError(ValueError):
    """A request for a measurement that makes no sense: a malformed shape, no repeats, an unknown model."""
