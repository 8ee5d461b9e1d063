import shutil

import pytest
import safetensors.torch

from momentumrnn.cli import main
from momentumrnn.training import load_recipe, train

CHANGES = [
    "data.name=text",
    "data.folder=mine",
    "data.vocabulary=6",
    "model.hidden_size=4",
    "language.embedding_size=4",
    "training.batch_size=2",
    "training.epochs=2",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    (data / "mine").mkdir()
    for part in ("train", "valid", "test"):
        (data / "mine" / f"{part}.txt").write_text("the cat saw the dog\nthe dog saw\n" * 9)
    folder = data / "runs" / "small"
    train(load_recipe("ptb-small-lstm-200").override(CHANGES), folder, data=data, threads=1)
    return folder


def text_of(capsys, *words):
    assert main(["generate", *map(str, words)]) == 0
    return capsys.readouterr().out


def error_of(capsys, *words):
    assert main(["generate", *map(str, words)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert len(told.err.splitlines()) == 1
    return told.err


def words_of(text):
    return [word for line in text.splitlines(keepends=True) for word in (*line.split(), line[-1])]


def test_text_is_drawn(run, capsys):
    text = text_of(capsys, run)
    assert text == text_of(capsys, run)
    assert text != text_of(capsys, run, "--seed", 1)
    known = {"the", "cat", "saw", "dog", "<unk>", "\n"}
    words = words_of(text)
    assert set(words) <= known
    # The last line is ended, whether or not that end was drawn.
    assert len(words) in (100, 101)
    assert "  " not in text
    assert "\n " not in text


def test_a_prompt_comes_first(run, capsys):
    text = text_of(capsys, run, "--prompt", "the dog saw", "--words", 3, "--temperature", 1e-3)
    assert text.startswith("the dog saw")
    assert len(words_of(text)) in (6, 7)


def test_what_cannot_be_generated(run, capsys, tmp_path):
    assert "is no run folder: it holds no recipe.toml" in error_of(capsys, tmp_path / "nowhere")
    assert "does not hold 'cats': did you mean 'cat'" in error_of(capsys, run, "--prompt", "the cats")
    for value in ("0", "-1", "nan", "inf"):
        told = error_of(capsys, run, "--temperature", value)
        assert f"--temperature: expected a finite number above 0, got {float(value)}" in told
    assert "--words: expected 1 or more, got 0" in error_of(capsys, run, "--words", 0)
    assert "--seed: expected 0 to" in error_of(capsys, run, "--seed", -1)


def test_a_run_without_weights_or_of_another_task(run, capsys, tmp_path):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "recipe.toml").write_bytes((run / "recipe.toml").read_bytes())
    assert "holds no weights yet" in error_of(capsys, tmp_path / "begun")
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "recipe.toml").write_text(load_recipe("digits-lstm").to_toml())
    assert "is a run on 'digits', which is no text" in error_of(capsys, tmp_path / "digits")


@pytest.mark.parametrize("name", ["best.safetensors", "vocabulary.txt"])
def test_a_damaged_run(run, capsys, tmp_path, name):
    for file in ("recipe.toml", "best.safetensors", "vocabulary.txt"):
        (tmp_path / file).write_bytes((run / file).read_bytes())
    (tmp_path / name).write_bytes((run / name).read_bytes()[:-20])
    assert "is damaged" in error_of(capsys, tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_draw_nothing(run, capsys, tmp_path, value):
    damaged = shutil.copytree(run, tmp_path / "run")
    weights = safetensors.torch.load_file(damaged / "best.safetensors")
    for tensor in weights.values():
        if tensor.is_floating_point():
            tensor.fill_(value)
    safetensors.torch.save_file(weights, damaged / "best.safetensors")
    assert "expected finite logits, got NaN or infinity" in error_of(capsys, damaged)


def test_control_characters_in_words_are_shown(run, capsys, tmp_path):
    strange = shutil.copytree(run, tmp_path / "run")
    words = (run / "vocabulary.txt").read_text().splitlines()
    words = words[:2] + [f"{word}\x1b[31m" for word in words[2:]]
    (strange / "vocabulary.txt").write_text("\n".join(words) + "\n")
    text = text_of(capsys, strange, "--words", 50)
    assert "\x1b" not in text
    assert "\\x1b[31m" in text
