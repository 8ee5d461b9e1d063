"""From a recording to log-magnitudes: 129 numbers, 62.5 times a second."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from momentumrnn.data.speech.audio import RATE, Signal, read_recording
from momentumrnn.errors import DataError

WINDOW, HOP, FLOOR = 256, 128, 1e-5
FEATURES = WINDOW // 2 + 1
# Of what a cache of features depends on beside the recordings; a change of the code below is a change of it.
SETTINGS = f"rate {RATE}, window {WINDOW}, hop {HOP}, floor {FLOOR}, float32, version 1"
# Of the transform's intermediate values, so that an hour of speech needs little more memory than its samples.
FRAMES_AT_ONCE = 4_096


def log_magnitudes(signal: Signal) -> Tensor:
    """10·log10(1e-5 + abs(X)²), X the short-time Fourier transform.

    The signal gets zeros at its end up to whole hops of 128 samples, and 256 more at both ends; the first
    frame starts with the first of them. Frames have 256 samples under a periodic Hann window. X is the
    plain sum, without a factor.

    Args:
        signal: (n,), float64, at 8 kHz.

    Returns:
        (ceil(n / 128) + 3, 129), float32, decibels.

    >>> log_magnitudes(np.zeros(1000)).shape
    torch.Size([11, 129])
    """
    padded = np.pad(signal, (WINDOW, WINDOW + -len(signal) % HOP))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    features = np.empty((len(frames), FEATURES), np.float32)
    for first in range(0, len(frames), FRAMES_AT_ONCE):
        chosen = slice(first, first + FRAMES_AT_ONCE)
        spectrum = np.fft.rfft(frames[chosen] * window)
        features[chosen] = 10 * np.log10(FLOOR + spectrum.real**2 + spectrum.imag**2)
    return torch.from_numpy(features)


def recording_features(path: Path) -> Tensor:
    """The log-magnitudes of a file.

    Args:
        path: The recording.

    Returns:
        (frames, 129), float32.

    Raises:
        DataError: It cannot be read, or is shorter than one window.
    """
    signal = read_recording(path)
    if len(signal) < WINDOW:
        raise DataError(
            f"{path}: expected at least {WINDOW} samples at {RATE} Hz ({1000 * WINDOW // RATE} ms), got "
            f"{len(signal)}; remove this recording"
        )
    return log_magnitudes(signal)
