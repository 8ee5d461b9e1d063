"""Recordings to features, held to a float64 oracle that takes nothing but sums and sines."""

import math
import os

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import resample_poly

from momentumrnn.data.speech import audio, features, log_magnitudes
from momentumrnn.data.speech.audio import read_recording
from momentumrnn.data.speech.features import recording_features
from momentumrnn.errors import DataError


def by_definition(signal):
    """The log-magnitudes, sample by sample."""
    whole = math.ceil(len(signal) / 128) * 128
    padded = np.concatenate([np.zeros(256), signal, np.zeros(whole - len(signal) + 256)])
    n = np.arange(256)
    hann = np.sin(np.pi * n / 256) ** 2
    rows = []
    for start in range(0, len(padded) - 255, 128):
        frame = padded[start : start + 256] * hann
        real = [(frame * np.cos(2 * np.pi * k * n / 256)).sum() for k in range(129)]
        imaginary = [(frame * np.sin(2 * np.pi * k * n / 256)).sum() for k in range(129)]
        rows.append([10 * math.log10(1e-5 + a * a + b * b) for a, b in zip(real, imaginary, strict=True)])
    return np.array(rows)


def tone(hertz, rate, seconds=0.5):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


@pytest.mark.parametrize("length", [256, 257, 640, 1000])
def test_features_by_definition(length):
    signal = np.random.RandomState(length).uniform(-1, 1, length)
    found = log_magnitudes(signal)
    assert found.dtype == torch.float32
    assert found.shape == (math.ceil(length / 128) + 3, 129)
    np.testing.assert_allclose(found.numpy(), by_definition(signal), rtol=0, atol=1e-4)


def test_silence_is_the_floor():
    torch.testing.assert_close(log_magnitudes(np.zeros(500)), torch.full((7, 129), -50.0))


def test_many_frames_are_transformed_in_parts(monkeypatch):
    signal = np.random.RandomState(0).uniform(-1, 1, 5000)
    whole = log_magnitudes(signal)
    monkeypatch.setattr(features, "FRAMES_AT_ONCE", 7)
    assert torch.equal(log_magnitudes(signal), whole)


@pytest.mark.parametrize(("rate", "tolerance"), [(16_000, 0.1), (11_025, 0.5), (44_100, 0.5), (6_000, 0.5)])
def test_another_sampling_rate(tmp_path, rate, tolerance):
    soundfile.write(tmp_path / "a.wav", tone(1000, rate), rate)
    soundfile.write(tmp_path / "b.wav", tone(1000, 8_000), 8_000)
    found, expected = (recording_features(tmp_path / name) for name in ("a.wav", "b.wav"))
    assert found.shape == expected.shape
    # The bin of 1,000 Hz, away from the ends.
    assert (found[5:-5].argmax(dim=1) == 32).all()
    assert (found[5:-5, 32] - expected[5:-5, 32]).abs().max() < tolerance


@pytest.mark.parametrize("rate", [8_000, 16_000, 11_025, 44_100, 6_000])
@pytest.mark.parametrize("samples", [100_000, 88_200, 96_000, 300, 0])
def test_a_recording_is_read_in_parts(tmp_path, monkeypatch, rate, samples):
    signal = np.random.RandomState(rate).uniform(-1, 1, samples)
    soundfile.write(tmp_path / "a.wav", signal, rate, subtype="DOUBLE")
    common = math.gcd(8_000, rate)
    expected = resample_poly(signal, 8_000 // common, rate // common) if samples else signal
    monkeypatch.setattr(audio, "SECONDS_AT_ONCE", 1)
    np.testing.assert_allclose(read_recording(tmp_path / "a.wav"), expected, rtol=0, atol=1e-12)


def test_what_8_khz_cannot_hold_is_filtered_out(tmp_path):
    # Without a filter 5,000 Hz would appear at 3,000.
    soundfile.write(tmp_path / "a.wav", tone(5000, 16_000), 16_000, subtype="FLOAT")
    assert np.abs(read_recording(tmp_path / "a.wav")[100:-100]).max() < 5e-3


@pytest.mark.parametrize(("suffix", "kind"), [("flac", "FLAC"), ("WAV", "NIST")])
def test_formats_hold_the_same_samples(tmp_path, suffix, kind):
    signal = (2**15 * tone(700, 8_000)).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", signal, 8_000, subtype="PCM_16")
    soundfile.write(tmp_path / f"b.{suffix}", signal, 8_000, format=kind, subtype="PCM_16")
    if kind == "NIST":
        assert (tmp_path / "b.WAV").read_bytes().startswith(b"NIST_1A")
    for name in ("a.wav", f"b.{suffix}"):
        assert np.array_equal(read_recording(tmp_path / name), signal / 2**15)


def test_channels_are_averaged(tmp_path):
    left, right = tone(700, 8_000), tone(900, 8_000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 8_000, subtype="DOUBLE")
    np.testing.assert_allclose(read_recording(tmp_path / "a.wav"), (left + right) / 2, atol=1e-12)


def test_a_file_that_is_none(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.wav: expected a recording, got an empty file"):
        read_recording(path)
    path.write_bytes(b"RIFF, or so it says")
    with pytest.raises(DataError, match=r"a\.wav: expected a recording that libsndfile reads"):
        read_recording(path)
    with pytest.raises(DataError, match=r"b\.wav: expected a recording"):
        read_recording(tmp_path / "b.wav")


FORMATS = [("WAV", {}), ("WAV", {"endian": "BIG"}), ("WAVEX", {}), ("NIST", {}), ("NIST", {"endian": "BIG"})]


@pytest.mark.parametrize(("kind", "more"), FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_recording_that_was_cut_off(tmp_path, kind, more, channels):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full((4_000, channels), 0.1), 8_000, format=kind, subtype="PCM_16", **more)
    assert len(read_recording(path)) == 4_000
    whole = path.read_bytes()
    # By a sample, by half of them, and by all.
    for left in (len(whole) - 2, len(whole) - 4_000 * channels, len(whole) - 8_000 * channels):
        path.write_bytes(whole[:left])
        held = 8_000 * channels - (len(whole) - left)
        expected = rf"a\.wav: expected {8_000 * channels:,} bytes of samples.*got {held:,}: it is cut off"
        with pytest.raises(DataError, match=expected):
            read_recording(path)


def test_flac_that_was_cut_off(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.RandomState(0).uniform(-0.5, 0.5, 20_000), 8_000)
    whole = path.read_bytes()
    for left in (len(whole) - 2, len(whole) // 2):
        path.write_bytes(whole[:left])
        with pytest.raises(DataError, match=r"a\.flac: expected a recording that libsndfile reads"):
            read_recording(path)


def test_a_compressed_recording_is_not_taken_for_one_that_was_cut_off(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(700, 8_000), 8_000, format="NIST", subtype="PCM_16")
    content = path.read_bytes()
    coding = b"sample_coding -s26 pcm,embedded-shorten-v2.00"
    header = content[:1024].replace(b"sample_coding -s3 pcm", coding)[:1024]
    assert coding in header
    path.write_bytes(header + content[1024:2000])
    with pytest.raises(DataError, match=r"a\.wav: expected a recording that libsndfile reads"):
        read_recording(path)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_recording_that_was_piped_says_no_length(tmp_path, length):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(700, 8_000), 8_000, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = length.to_bytes(4, "little")
    path.write_bytes(content)
    assert len(read_recording(path)) == 4_000


def test_chunks_around_the_samples(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(700, 8_000), 8_000, subtype="PCM_16")
    content = path.read_bytes()
    place = content.index(b"data")
    chunk = b"note" + (3).to_bytes(4, "little") + b"abc\0"
    # The first one ends at an odd place, and is filled up.
    path.write_bytes(content[:place] + chunk + content[place:] + chunk)
    assert len(read_recording(path)) == 4_000
    path.write_bytes(path.read_bytes()[: -len(chunk) - 2])
    with pytest.raises(DataError, match="it is cut off"):
        read_recording(path)


def test_a_name_that_is_no_text(tmp_path):
    signal = tone(700, 8_000)
    soundfile.write(tmp_path / "a.wav", signal, 8_000, subtype="DOUBLE")
    try:
        path = (tmp_path / "a.wav").rename(tmp_path / os.fsdecode(b"\xff.wav"))
    except (OSError, UnicodeError):
        pytest.skip("this file system takes text alone for names")
    assert np.array_equal(read_recording(path), signal)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="expected a recording that libsndfile reads"):
        read_recording(path)


def test_samples_that_are_not_finite(tmp_path):
    signal = tone(700, 8_000)
    signal[7] = np.nan
    soundfile.write(tmp_path / "a.wav", signal, 8_000, subtype="FLOAT")
    with pytest.raises(DataError, match=r"a\.wav: expected finite samples"):
        read_recording(tmp_path / "a.wav")


@pytest.mark.parametrize(("samples", "rate"), [(255, 8_000), (510, 16_000), (0, 8_000)])
def test_a_recording_too_short(tmp_path, samples, rate):
    soundfile.write(tmp_path / "a.wav", np.zeros(samples), rate)
    with pytest.raises(
        DataError, match=rf"a\.wav: expected at least 256 samples.*got {samples * 8000 // rate}"
    ):
        recording_features(tmp_path / "a.wav")
