"""A hint for a name that nothing has."""

import difflib
from collections.abc import Callable, Iterable


def did_you_mean(
    given: str,
    known: Iterable[str],
    otherwise: str = "",
    *,
    before: str = ": ",
    show: Callable[[str], str] = repr,
    cutoff: float = 0.6,
) -> str:
    """The end of an error message that names the nearest known name.

    Args:
        given: The name that is not known.
        known: Those that are.
        otherwise: What to say where none is near.
        before: What stands between the message and this.
        show: How a name is written.
        cutoff: How near a name has to be, from 0 to 1.

    >>> "there is no 'minst'" + did_you_mean("minst", ["mnist", "digits"])
    "there is no 'minst': did you mean 'mnist'?"
    >>> did_you_mean("speech", ["mnist", "digits"], "known are mnist, digits")
    ': known are mnist, digits'
    >>> did_you_mean("speech", ["mnist", "digits"])
    ''
    """
    near = difflib.get_close_matches(given, list(known), n=1, cutoff=cutoff)
    hint = f"did you mean {show(near[0])}?" if near else otherwise
    return before + hint if hint else ""
