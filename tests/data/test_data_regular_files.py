"""Data files that are no regular files, or hold more than they say, are refused at once."""

import gzip
import os
import signal
import socket
import struct
import tracemalloc
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile

from momentumrnn.data.fetch import fetch_files
from momentumrnn.data.idx import read_idx
from momentumrnn.data.mnist import check_mnist, load_mnist
from momentumrnn.data.speech.audio import read_recording
from momentumrnn.data.speech.folder import load_speech_folder
from momentumrnn.data.text.files import load_text_folder
from momentumrnn.data.text.penn import load_penn
from momentumrnn.errors import DataError

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")

MEGABYTE = 2**20


@pytest.fixture(autouse=True)
def at_once():
    """What waits for a pipe fails instead."""

    def late(*_):
        raise TimeoutError("it waited")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def linked_pipe(path):
    target = path.with_name(f"{path.name}.pipe")
    os.mkfifo(target)
    path.symlink_to(target)


def bound_socket(path):
    # Its own name is short, because that of a socket may be.
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(path.parent)
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


IRREGULAR = {
    "pipe": (pipe, "a named pipe"),
    "device": (device, "a device"),
    "linked-pipe": (linked_pipe, "a named pipe"),
    "socket": (bound_socket, "a socket"),
}


@pytest.fixture(params=IRREGULAR)
def irregular(request):
    return IRREGULAR[request.param]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_images(tmp_path, irregular, suffix):
    make, kind = irregular
    make(tmp_path / f"images{suffix}")
    with pytest.raises(DataError, match=f"cannot be read: .*expected a regular file, got {kind}"):
        read_idx(tmp_path / f"images{suffix}", 3)


def test_labels_of_mnist(tmp_path, irregular):
    make, _ = irregular
    (tmp_path / "mnist").mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        make(tmp_path / "mnist" / f"{name}-ubyte")
    for read in (load_mnist, check_mnist):
        with pytest.raises(DataError, match="train-images-idx3-ubyte: cannot be read"):
            read(tmp_path)


def test_a_file_to_be_fetched(tmp_path, irregular):
    make, kind = irregular
    make(tmp_path / "file")
    with pytest.raises(DataError, match=f"got {kind}"):
        fetch_files({"file": "00"}, [], tmp_path)


def test_texts(tmp_path, irregular):
    make, kind = irregular
    for name in ("valid.txt", "test.txt"):
        (tmp_path / name).write_text("a b c\n")
    make(tmp_path / "train.txt")
    with pytest.raises(DataError, match=f"train.txt.*got {kind}"):
        load_text_folder(tmp_path, ".", 3)


def test_the_penn_treebank(tmp_path, irregular):
    make, kind = irregular
    (tmp_path / "ptb").mkdir()
    for part in ("valid", "test"):
        (tmp_path / "ptb" / f"ptb.{part}.txt").write_text("a b c\n")
    make(tmp_path / "ptb" / "ptb.train.txt")
    with pytest.raises(DataError, match=f"ptb.train.txt.*got {kind}"):
        load_penn(tmp_path)


def test_recordings(tmp_path, irregular, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make, kind = irregular
    speech = tmp_path / "speech"
    speech.mkdir()
    for number in range(40):
        soundfile.write(speech / f"{number}.wav", np.zeros(800), 8000)
    make(speech / "a.wav")
    with pytest.raises(DataError, match=f"a.wav.*got.*{kind}"):
        load_speech_folder(tmp_path, "speech")


def test_links_to_regular_files_are_followed(tmp_path):
    """Data are often linked from where several people have them."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").mkdir()
    for part in ("train", "valid", "test"):
        (tmp_path / "elsewhere" / part).write_text("a b c\n")
        (tmp_path / "here" / f"{part}.txt").symlink_to(tmp_path / "elsewhere" / part)
    assert len(load_text_folder(tmp_path, "here", 3).train) == 4


def declared(shape, held):
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + bytes(held)


def peak_of(function, message):
    tracemalloc.start()
    with pytest.raises(DataError, match=message):
        function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_more_than_the_header_declares(tmp_path, suffix):
    path = tmp_path / f"images{suffix}"
    content = declared((5, 3, 2), 64 * MEGABYTE)
    path.write_bytes(gzip.compress(content, 1) if suffix else content)
    peak = peak_of(lambda: read_idx(path, 3), r"expected 30 values for the shape \(5, 3, 2\).*got 31 or more")
    assert peak < 8 * MEGABYTE


def test_more_than_mnist_has(tmp_path):
    """Its own header cannot raise the bound."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    content = declared((84_000, 28, 28), 84_000 * 784)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content, 1))
    (folder / "train-labels-idx1-ubyte").write_bytes(declared((60_000,), 60_000))
    for read in (load_mnist, check_mnist):
        peak = peak_of(lambda read=read: read(tmp_path), "expected at most 47040000 values, got 65856000")
        assert peak < 8 * MEGABYTE


def test_a_checksum_takes_no_memory(tmp_path):
    (tmp_path / "file.gz").write_bytes(gzip.compress(bytes(64 * MEGABYTE), 1))
    peak = peak_of(lambda: fetch_files({"file.gz": "00"}, [], tmp_path), "expected contents with sha256 00")
    assert peak < 8 * MEGABYTE


def test_years_of_silence(tmp_path):
    path = tmp_path / "silence.flac"
    soundfile.write(path, np.zeros(8000), 8000)
    content = bytearray(path.read_bytes())
    # The last 36 bits of these bytes are the number of samples.
    (about,) = struct.unpack(">Q", content[18:26])
    content[18:26] = struct.pack(">Q", about | (2**36 - 1))
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"expected at most 12 hours .*got 2,386\.1 hours at 8,000 Hz"):
        read_recording(path)


def test_a_rate_that_no_recorder_has(tmp_path):
    path = tmp_path / "fast.wav"
    with wave.open(str(path), "wb") as stream:
        stream.setparams((1, 2, 1_000_003, 0, "NONE", ""))
        stream.writeframes(bytes(2000))
    with pytest.raises(DataError, match=r"768,000 Hz or less.*at 1,000,003 Hz"):
        read_recording(path)
