"""What goes wrong with some of many runs."""


class ReproduceError(RuntimeError):
    """Some runs failed, or a request that makes no sense: no table named, no time, no job."""
