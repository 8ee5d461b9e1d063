"""Reading a recording, whatever its format and sampling rate, as one channel at 8 kHz."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from momentumrnn.data.speech.promised import check_promised
from momentumrnn.errors import DataError
from momentumrnn.regular_files import open_regular

RATE = 8_000
# What is in memory at the recording's own rate; an hour of music is ten times its 8 kHz.
SECONDS_AT_ONCE = 60
# A small FLAC file can declare and hold years of silence. These hours take 2.8 GB at 8 kHz.
MOST_HOURS = 12
# Of recorders. The filter that changes a rate grows with it.
HIGHEST_RATE = 768_000
# Half the length of scipy's filter, in periods of the lower of the two rates.
HALF_FILTER = 10

Signal = NDArray[np.float64]


def read_recording(path: Path) -> Signal:
    """Read WAV, FLAC, NIST SPHERE or another format that libsndfile knows by its contents.

    Args:
        path: The file; several channels are averaged, another sampling rate is brought to 8 kHz by a
            polyphase filter (``scipy.signal.resample_poly``), a minute at a time.

    Returns:
        float64 samples (n,), in [−1, 1] for whole-number formats, at 8 kHz.

    Raises:
        DataError: The file is empty, cut off, too long, cannot be read, or holds values that are not finite.
    """
    import soundfile

    try:
        # Opened here: soundfile takes no name that is not UTF-8.
        with open_regular(path) as file:
            if path.stat().st_size == 0:
                raise DataError(
                    f"{path}: expected a recording, got an empty file; remove it or copy it again"
                )
            check_promised(path, file)
            with soundfile.SoundFile(file) as stream:
                _check_size(path, stream)
                signal = _read(stream)
    except (OSError, soundfile.SoundFileError) as error:
        # Without the description of the open file, which soundfile puts before it.
        told = getattr(error, "error_string", error)
        raise DataError(
            f"{path}: expected a recording that libsndfile reads (WAV, FLAC, NIST SPHERE without shorten "
            f"compression), got: {told}; convert it, copy it again, or remove it"
        ) from error
    if not np.isfinite(signal).all():
        raise DataError(
            f"{path}: expected finite samples, got some that are NaN or infinite; remove or repair this file"
        )
    return signal


def _check_size(path: Path, stream: Any) -> None:
    hours = stream.frames / stream.samplerate / 3600
    if hours > MOST_HOURS or stream.samplerate > HIGHEST_RATE:
        raise DataError(
            f"{path}: expected at most {MOST_HOURS} hours at {HIGHEST_RATE:,} Hz or less, got {hours:,.1f} "
            f"hours at {stream.samplerate:,} Hz by its header; divide or convert it, or remove it"
        )


def _read(stream: Any) -> Signal:
    from scipy.signal import resample_poly

    common = math.gcd(RATE, stream.samplerate)
    up, down = RATE // common, stream.samplerate // common
    # Both are whole periods of the conversion, so that every block begins at the same phase as the first.
    block = down * max(1, SECONDS_AT_ONCE * stream.samplerate // down)
    context = 0 if up == down else down * math.ceil(HALF_FILTER * max(up, down) / (up * down))
    pieces = [np.empty(0)]
    blocks = stream.blocks(block + 2 * context, 2 * context, dtype="float64", always_2d=True)
    for number, samples in enumerate(blocks):
        resampled = resample_poly(samples.mean(axis=1), up, down)
        # What the filter made without its neighbours was made, or will be, with them in another block.
        first = context * up // down if number else 0
        whole = number * block + len(samples) >= stream.frames
        pieces.append(resampled[first : None if whole else (context + block) * up // down])
    return np.concatenate(pieces)
