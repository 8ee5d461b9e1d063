"""Which recordings are learned from, chosen by and reported."""

import os
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from momentumrnn.data import find_dataset
from momentumrnn.data.speech import load_prompts, load_speech_folder, load_timit, timit
from momentumrnn.data.speech.features import recording_features
from momentumrnn.data.speech.folder import find_recordings, folder_parts, part_of
from momentumrnn.data.speech.speakers import CORE_TEST, DEVELOPMENT
from momentumrnn.data.speech.timit import timit_parts
from momentumrnn.errors import DataError, DataMissingError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def record(path, seed=0, rate=8_000, samples=500, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.RandomState(seed).uniform(-0.5, 0.5, samples)
    soundfile.write(path, noise, rate, subtype="PCM_16", **more)


def test_the_part_of_a_file_never_changes():
    # Pinned: another split would make old and new results two things under one name.
    assert {name: part_of(name) for name in PINNED} == PINNED
    shares = Counter(part_of(f"{number}.wav") for number in range(10_000))
    assert abs(shares["train"] - 8_000) < 150
    assert abs(shares["validation"] - 1_000) < 120
    assert abs(shares["test"] - 1_000) < 120


PINNED = {"x/y.flac": "train", "0.wav": "test", "1.wav": "test", "7.wav": "validation", "8.wav": "test"}


def test_letters_with_accents_are_the_same_however_they_are_stored():
    names = [f"é{number}.wav" for number in range(50)]
    assert [part_of(unicodedata.normalize("NFD", name)) for name in names] == [part_of(n) for n in names]


def test_recordings_are_found_in_folders_and_in_any_case(tmp_path):
    for name in ("a.wav", "B.WAV", "x/y/c.flac", "x/d.Flac", "e.mp3", "notes.txt", "x/.hidden.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.wav").mkdir()
    assert find_recordings(tmp_path, "") == ["B.WAV", "a.wav", "x/d.Flac", "x/y/c.flac"]


def test_recordings_are_found_in_linked_folders(tmp_path):
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep" / "b.wav").write_bytes(b"")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.wav").write_bytes(b"")
    (tmp_path / "here" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    # Neither a link without an end nor one that leads nowhere is followed.
    (tmp_path / "here" / "itself").symlink_to(tmp_path / "here", target_is_directory=True)
    (tmp_path / "elsewhere" / "deep" / "back").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "here" / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    assert find_recordings(tmp_path / "here", "") == ["a.wav", "linked/deep/b.wav"]


def test_no_recordings(tmp_path):
    with pytest.raises(
        DataMissingError, match=r"is no folder; name a folder of recordings with data\.folder"
    ):
        load_speech_folder(tmp_path, "nowhere")
    with pytest.raises(DataMissingError, match="holds no WAV or FLAC file"):
        load_speech_folder(tmp_path, ".")
    with pytest.raises(DataMissingError, match="asterisk-core-sounds-en-wav"):
        load_prompts(tmp_path)
    with pytest.raises(DataMissingError, match=r"LDC93S1.*data\.name=prompts"):
        load_timit(tmp_path)


def test_too_few_recordings_for_three_parts(tmp_path):
    record(tmp_path / "a.wav")
    with pytest.raises(DataError, match="got 1 and none of them for validation"):
        folder_parts(tmp_path)


def test_a_folder_is_read_by_part(tmp_path):
    names = [f"{number}.wav" for number in range(40)]
    for seed, name in enumerate(names):
        record(tmp_path / "mine" / name, seed, samples=300 + 40 * seed)
    splits = load_speech_folder(tmp_path, "mine")
    for part in ("train", "validation", "test"):
        utterances = getattr(splits, part)
        members = sorted(name for name in names if part_of(name) == part)
        assert len(utterances) == len(members) > 0
        for row, name in enumerate(members):
            expected = recording_features(tmp_path / "mine" / name)
            batch = utterances.batch(np.array([row]))
            assert torch.equal(batch.inputs[:, 0], expected[:-1])
            assert torch.equal(batch.targets[:, 0], expected[1:])
    absolute = load_speech_folder(tmp_path / "elsewhere", str(tmp_path / "mine"))
    assert torch.equal(absolute.train.frames, splits.train.frames)


def test_prompts_leave_silence_out(tmp_path):
    for number in range(40):
        record(tmp_path / "speech" / "asterisk-en" / f"{number}.wav", number)
        record(tmp_path / "speech" / "asterisk-en" / "silence" / f"{number}.wav", number)
    splits = load_prompts(tmp_path)
    assert sum(len(part) for part in (splits.train, splits.validation, splits.test)) == 40


def speakers(count, half):
    return [f"{'mf'[number % 2]}{half}{number:03}" for number in range(count)]


def timit_tree(root, upper=True, make=lambda path: path.touch()):
    """Names as in the LDC tree: 462 speakers under TRAIN, 168 under TEST, ten sentences each."""
    halves = {
        "train": speakers(462, "a"),
        "test": [*DEVELOPMENT, *CORE_TEST, *speakers(94, "b")],
    }
    for half, members in halves.items():
        for number, speaker in enumerate(members):
            for sentence in ("sa1", "sa2", "si1", "si2", "si3", "sx1", "sx2", "sx3", "sx4", "sx5"):
                for suffix in ("wav", "txt"):
                    name = f"{half}/dr{number % 8 + 1}/{speaker}/{sentence}.{suffix}"
                    path = root / (name.upper() if upper else name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    make(path)


def test_speakers_are_as_many_as_there_should_be():
    assert (len(DEVELOPMENT), len(CORE_TEST)) == (50, 24)
    assert not DEVELOPMENT & CORE_TEST


@pytest.mark.parametrize("upper", [True, False])
def test_timit_is_divided_by_speaker(tmp_path, upper):
    timit_tree(tmp_path / "TIMIT", upper)
    parts = timit_parts(tmp_path)
    assert {part: len(names) for part, names in parts.items()} == {
        "train": 3696,
        "validation": 192,
        "test": 400,
    }
    spoken = {part: {Path(name.lower()).parent.name for name in names} for part, names in parts.items()}
    assert spoken["validation"] == CORE_TEST
    assert spoken["test"] == DEVELOPMENT
    assert spoken["train"] == set(speakers(462, "a"))
    every = [Path(name.lower()).name for names in parts.values() for name in names]
    assert not [name for name in every if name.startswith("sa") or not name.endswith(".wav")]


def test_a_copy_of_timit_in_two_formats_counts_once(tmp_path):
    timit_tree(tmp_path)
    for path in list(tmp_path.rglob("SX1.WAV")):
        path.with_name("SX1.WAV.wav").touch()
    assert len(timit_parts(tmp_path)["train"]) == 3696


def test_what_macos_keeps_beside_each_file_is_no_utterance(tmp_path):
    timit_tree(tmp_path)
    for path in list(tmp_path.rglob("*.WAV")):
        path.with_name(f"._{path.name}").touch()
    assert [len(names) for names in timit_parts(tmp_path).values()] == [3696, 192, 400]


def test_an_incomplete_timit_is_refused(tmp_path):
    timit_tree(tmp_path)
    next(tmp_path.glob("TEST/*/MDAB0/SX1.WAV")).unlink()
    with pytest.raises(DataError, match="expected 192 utterances of TIMIT for validation, got 191"):
        timit_parts(tmp_path)


def test_timit_is_read_from_nist_sphere(tmp_path, monkeypatch):
    names = {
        "train": ["TRAIN/DR1/FCJF0/SI1027.WAV", "TRAIN/DR2/MABC0/SX1.WAV"],
        "validation": ["TEST/DR1/MDAB0/SI1039.WAV"],
        "test": ["TEST/DR4/FADG0/SI1279.WAV"],
    }
    others = ["TRAIN/DR1/FCJF0/SA1.WAV", "TEST/DR1/MXYZ0/SI1.WAV"]
    for seed, name in enumerate([*names["train"], *names["validation"], *names["test"], *others]):
        record(tmp_path / "timit" / name, seed, rate=16_000, samples=3_000, format="NIST")
    monkeypatch.setattr(timit, "UTTERANCES", {part: len(members) for part, members in names.items()})
    splits = load_timit(tmp_path)
    for part, members in names.items():
        for row, name in enumerate(members):
            expected = recording_features(tmp_path / "timit" / name)
            assert torch.equal(getattr(splits, part).batch(np.array([row])).targets[:, 0], expected[1:])


def test_the_prompts():
    folder = os.environ.get("MOMENTUMRNN_DATA")
    if not folder or not (Path(folder) / "speech" / "asterisk-en").is_dir():
        pytest.skip("the telephone prompts are looked for in speech/asterisk-en in MOMENTUMRNN_DATA")
    splits = find_dataset("prompts").load(Path(folder), None)
    parts = (splits.train, splits.validation, splits.test)
    # One recording is longer than a minute and is cut.
    assert [len(part) for part in parts] == [454, 50, 55]
    frames = splits.train.frames
    assert torch.isfinite(frames).all()
    assert frames.min() >= -50
    assert 5 < frames.std() < 30
