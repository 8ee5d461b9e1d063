import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from momentumrnn.data import find_dataset
from momentumrnn.data.text import IGNORED, Columns, Vocabulary, draw_lengths, load_text_folder
from momentumrnn.data.text.files import find_texts, read_words
from momentumrnn.data.text.streams import expected_length
from momentumrnn.errors import DataError, DataMissingError

TEXT = {
    "train": "the cat saw the dog\nthe dog saw a cow\n",
    "valid": "the cow saw a crow\n",
    "test": "a cat\n\nsaw the cat",
}


def write_texts(folder, texts=TEXT, prefix="", suffix="txt"):
    folder.mkdir(parents=True, exist_ok=True)
    for part, text in texts.items():
        (folder / f"{prefix}{part}.{suffix}").write_text(text, encoding="utf-8")
    return folder


def test_the_vocabulary_holds_the_most_frequent_words():
    words = ["b", "a", "c", "b", "<unk>", "d", "c", "b", "<eos>", "a"]
    assert Vocabulary.of(words, 5, "here").words == ("<unk>", "<eos>", "b", "a", "c")
    assert Vocabulary.of(words, 6, "here").words == ("<unk>", "<eos>", "b", "a", "c", "d")
    with pytest.raises(DataError, match=r"here: expected 7 different words, .* got 6; set data\.vocabulary"):
        Vocabulary.of(words, 7, "here")


def test_words_and_numbers():
    vocabulary = Vocabulary(("<unk>", "<eos>", "cat", "dog"))
    assert vocabulary.encode(["dog", "cow", "cat", "<eos>"]).tolist() == [3, 0, 2, 1]
    assert vocabulary.number("cat") == 2
    with pytest.raises(DataError, match="of 4 words does not hold 'cats': did you mean 'cat'"):
        vocabulary.number("cats")
    with pytest.raises(DataError, match="<unk> stands for words it does not know"):
        vocabulary.number("whale")


def test_every_line_ends_blank_ones_too(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("\ufeffüber  das\r\n\r\nMeer\u00a0hin\x85 her".encode())
    assert read_words(path) == ["über", "das", "<eos>", "<eos>", "Meer", "hin", "her", "<eos>"]


@pytest.mark.parametrize(
    ("content", "message"), [(b"\xff\xfe", "text in UTF-8"), (b" \n\n", "without a word")]
)
def test_what_is_no_text(tmp_path, content, message):
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_words(tmp_path / "text")


@pytest.mark.parametrize(("prefix", "suffix"), [("", "txt"), ("ptb.", "txt"), ("wiki.", "tokens")])
def test_texts_in_a_folder(tmp_path, prefix, suffix):
    write_texts(tmp_path / "mine", prefix=prefix, suffix=suffix)
    text = load_text_folder(tmp_path, "mine", 6)
    assert text.vocabulary.words == ("<unk>", "<eos>", "the", "dog", "saw", "a")
    assert text.train.tolist() == [2, 0, 4, 2, 3, 1, 2, 3, 4, 5, 0, 1]
    assert text.validation.tolist() == [2, 0, 4, 5, 0, 1]
    assert text.test.tolist() == [5, 0, 1, 1, 4, 2, 0, 1]
    assert torch.equal(load_text_folder(tmp_path / "elsewhere", str(tmp_path / "mine"), 6).train, text.train)


def test_texts_that_are_missing_or_doubtful(tmp_path):
    with pytest.raises(DataMissingError, match=r"mine is no folder; expected train\.txt, valid\.txt"):
        find_texts(tmp_path / "mine")
    folder = write_texts(tmp_path / "mine")
    (folder / "valid.txt").rename(folder / "validation.txt")
    assert find_texts(folder)["validation"].name == "validation.txt"
    (folder / "test.txt").rename(folder / "last.txt")
    with pytest.raises(DataMissingError, match=r"mine holds no test\.txt"):
        find_texts(folder)
    write_texts(tmp_path / "mine")
    with pytest.raises(DataError, match=r"one file for validation, got valid\.txt, validation\.txt"):
        find_texts(folder)


@pytest.mark.parametrize(("words", "columns"), [(1, 1), (7, 3), (12, 3), (21, 10), (4, 9), (100, 7)])
def test_every_word_follows_the_one_before_it(words, columns):
    text = torch.arange(1, words + 1)
    laid = Columns.of(text, columns, 0, whole=True)
    assert laid.inputs.shape == laid.targets.shape
    counted = laid.targets != IGNORED
    # Column after column, it is the text.
    assert laid.targets.t()[counted.t()].tolist() == text.tolist()
    assert torch.equal(laid.inputs[counted], laid.targets[counted] - 1)
    assert laid.lengths == tuple(counted.sum(0).tolist())
    assert counted[0, 0]
    if words >= columns:
        trimmed = Columns.of(text, columns, 0, whole=False)
        rows = words // columns
        assert trimmed.targets.t().flatten().tolist() == list(range(1, rows * columns + 1))
        assert torch.equal(trimmed.inputs, trimmed.targets - 1)
        assert trimmed.lengths == (rows,) * columns
    else:
        with pytest.raises(DataError, match=f"each of training.batch_size = {columns} columns, got a text"):
            Columns.of(text, columns, 0, whole=False)


def test_lengths_are_drawn_from_their_distribution():
    lengths = np.array(draw_lengths(2_000_000, 70, (3, 1))[:-1])
    assert lengths.min() >= 5
    short = lengths < 52
    assert short.mean() == pytest.approx(0.05, abs=0.004)
    assert lengths[~short].mean() == pytest.approx(70, abs=0.15)
    assert lengths[~short].std() == pytest.approx(5, abs=0.1)
    assert lengths[short].mean() == pytest.approx(35, abs=0.6)
    assert lengths.mean() == pytest.approx(expected_length(70), abs=0.3)


@pytest.mark.parametrize("rows", [1, 4, 70, 71, 5_000])
def test_lengths_add_up_and_follow_from_the_seed(rows):
    lengths = draw_lengths(rows, 35, (0, 2))
    assert sum(lengths) == rows
    assert min(lengths[:-1], default=5) >= 5
    assert lengths == draw_lengths(rows, 35, (0, 2))
    if rows == 5_000:
        assert lengths != draw_lengths(rows, 35, (0, 3))
        assert lengths != draw_lengths(rows, 35, (1, 2))


def test_the_penn_treebank_is_not_fetched_and_not_found(tmp_path):
    dataset = find_dataset("ptb")
    assert dataset.fetch is None
    with pytest.raises(DataMissingError, match=r"ptb\.train\.txt.*licensed \(LDC99T42.*data\.name=text"):
        dataset.check(tmp_path)


def test_the_penn_treebank_of_someone_else(tmp_path):
    write_texts(tmp_path / "ptb", prefix="ptb.")
    with pytest.raises(DataError, match=r"ptb\.train\.txt: expected Mikolov's words with sha256 1312f0"):
        find_dataset("ptb").check(tmp_path)


@pytest.mark.skipif(
    not (Path(os.environ.get("MOMENTUMRNN_DATA", "")) / "ptb").is_dir()
    or not os.environ.get("MOMENTUMRNN_DATA"),
    reason="the Penn Treebank is not in MOMENTUMRNN_DATA",
)
def test_the_penn_treebank(tmp_path):
    data = Path(os.environ["MOMENTUMRNN_DATA"])
    text = find_dataset("ptb").load(data, None, 10_000)
    assert [len(part) for part in (text.train, text.validation, text.test)] == [929_589, 73_760, 82_430]
    assert len(text.vocabulary) == 10_000
    words = [text.vocabulary.words[number] for number in text.test[:7]]
    assert words == ["no", "it", "was", "n't", "black", "monday", "<eos>"]
    # One word changed is seen.
    shutil.copytree(data / "ptb", tmp_path / "ptb")
    (path := tmp_path / "ptb" / "ptb.valid.txt").chmod(0o600)
    path.write_text(path.read_text().replace("consumers", "customers", 1))
    with pytest.raises(DataError, match=r"ptb\.valid\.txt: expected Mikolov's words"):
        find_dataset("ptb").check(tmp_path)
