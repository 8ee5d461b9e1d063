import shutil

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch

from momentumrnn.data.speech import cache
from momentumrnn.data.speech.cache import features_of
from momentumrnn.data.speech.features import recording_features
from momentumrnn.errors import DataError

NAMES = ["a.wav", "sub/b.wav"]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "recordings" / "sub").mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        noise = np.random.RandomState(seed).uniform(-0.5, 0.5, 600 + 300 * seed)
        soundfile.write(tmp_path / "recordings" / name, noise, 8_000)
    return tmp_path / "recordings"


@pytest.fixture
def reads(monkeypatch):
    """The recordings that are read, by name."""
    seen = []

    def counted(path):
        seen.append(path.name)
        return recording_features(path)

    monkeypatch.setattr(cache, "recording_features", counted)
    return seen


def the_file(folder):
    (path,) = folder.iterdir()
    return path


def test_features_are_computed_once(root, tmp_path, reads):
    first = features_of(root, NAMES, tmp_path / "cache")
    each = [recording_features(root / name) for name in NAMES]
    assert torch.equal(first.frames, torch.cat(each))
    assert first.ends.tolist() == [len(each[0]), len(each[0]) + len(each[1])]
    assert reads == ["a.wav", "b.wav"]
    again = features_of(root, NAMES, tmp_path / "cache")
    assert reads == ["a.wav", "b.wav"]
    assert torch.equal(again.frames, first.frames)
    assert torch.equal(again.ends, first.ends)
    assert the_file(tmp_path / "cache").suffix == ".safetensors"


def test_other_recordings_or_settings_are_another_cache(root, tmp_path, reads, monkeypatch):
    features_of(root, NAMES, tmp_path / "cache")
    del reads[:]
    features_of(root, NAMES[:1], tmp_path / "cache")
    assert reads == ["a.wav"]
    soundfile.write(root / "a.wav", np.zeros(999), 8_000)
    assert features_of(root, NAMES, tmp_path / "cache").ends[0] == 11
    assert reads == ["a.wav", "a.wav", "b.wav"]
    monkeypatch.setattr(cache, "SETTINGS", "others")
    features_of(root, NAMES, tmp_path / "cache")
    assert len(reads) == 5


def test_recordings_of_the_same_names_and_sizes_are_told_apart(root, tmp_path, reads):
    first = features_of(root, NAMES, tmp_path / "cache")
    shutil.copytree(root, tmp_path / "others")
    features_of(tmp_path / "others", NAMES, tmp_path / "cache")
    assert len(reads) == 4
    size = (root / "a.wav").stat().st_size
    soundfile.write(root / "a.wav", np.full(600, 0.1), 8_000)
    assert (root / "a.wav").stat().st_size == size
    again = features_of(root, NAMES, tmp_path / "cache")
    assert len(reads) == 6
    assert not torch.equal(again.frames, first.frames)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def swap_the_contents(path):
    tensors = {"frames": torch.zeros(3, 129), "ends": torch.tensor([1, 3])}
    with safetensors.safe_open(path, "pt") as stored:
        told = stored.metadata()
    safetensors.torch.save_file(tensors, path, told)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        swap_the_contents,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: safetensors.torch.save_file({"other": torch.zeros(1)}, path),
        lambda path: safetensors.torch.save_file({"frames": torch.zeros(3), "ends": torch.zeros(1)}, path),
    ],
)
def test_a_damaged_cache_is_noticed_and_rebuilt(root, tmp_path, damage):
    first = features_of(root, NAMES, tmp_path / "cache")
    damage(the_file(tmp_path / "cache"))
    with pytest.warns(UserWarning, match=r"\.safetensors is damaged .*computed again"):
        again = features_of(root, NAMES, tmp_path / "cache")
    assert torch.equal(again.frames, first.frames)
    assert torch.equal(again.ends, first.ends)
    # And now it is whole: a warning would be an error.
    features_of(root, NAMES, tmp_path / "cache")


def test_a_cache_that_cannot_be_written(root, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.warns(UserWarning, match="cannot be written"):
        found = features_of(root, NAMES, tmp_path / "cache")
    assert len(found.ends) == 2


def test_nothing_is_kept_of_a_failure(root, tmp_path, monkeypatch):
    def interrupted(tensors, path, told):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.torch, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        features_of(root, NAMES, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    (root / "a.wav").write_bytes(b"")
    with pytest.raises(DataError, match="empty file"):
        features_of(root, NAMES, tmp_path / "cache")
