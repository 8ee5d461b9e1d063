"""Metrics and checkpoint of a run have to agree before it counts as finished."""

import shutil

import pytest

from momentumrnn.errors import CheckpointError
from momentumrnn.results import find_runs
from momentumrnn.training import load_recipe, run, train
from momentumrnn.training.history import read_metrics
from momentumrnn.training.run_folder import RunFolder

RECIPE = load_recipe("digits-momentum-lstm").override(
    ["model.hidden_size=4", "training.epochs=2", "training.batch_size=512"]
)


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "one-epoch"
    train(RECIPE.override(["training.epochs=1"]), folder, threads=1)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(RECIPE, folder, threads=1)
    return folder


@pytest.fixture
def copied(tmp_path):
    def copy(folder):
        return shutil.copytree(folder, tmp_path / "copy")

    return copy


def rewrite(folder, change):
    """Change the lines behind the header; each is its cells."""
    path = folder / "metrics.csv"
    header, *lines = path.read_text().splitlines()
    rows = change([line.split(",") for line in lines])
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")


def edited(rows, row, column, value):
    return [
        [value if (i, k) == (row, column) else cell for k, cell in enumerate(cells)]
        for i, cells in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, rows[-1]], "expected the row of epoch 3, got that of epoch 2"),
        (lambda rows: rows[1:], "expected the row of epoch 1, got that of epoch 2"),
        (lambda rows: rows[::-1], "expected the row of epoch 1, got that of epoch 2"),
        (lambda rows: edited(rows, 1, 0, "5"), "expected the row of epoch 2, got that of epoch 5"),
        (lambda rows: edited(rows, 1, 1, rows[0][1]), "epoch 2: expected a step after 3, got 3"),
        (lambda rows: edited(rows, 0, 1, "0"), "epoch 1: expected a step after 0, got 0"),
    ],
    ids=["doubled", "missing", "reversed", "renumbered", "step", "no-step"],
)
def test_epochs_that_do_not_follow_one_another(finished, copied, change, message):
    folder = copied(finished)
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=message):
        train(RECIPE, folder, threads=1)
    # A report leaves such a run out, and says why.
    (warning,) = find_runs([folder.parent, finished]).warnings
    assert message in warning
    (folder / "metrics.csv").unlink()
    train(RECIPE, folder, threads=1)
    assert read_metrics(folder / "metrics.csv") == read_metrics(finished / "metrics.csv")


def test_a_doubled_last_row_is_no_second_epoch(one_epoch, copied):
    folder = copied(one_epoch)
    rewrite(folder, lambda rows: [*rows, rows[-1]])
    with pytest.raises(CheckpointError, match="expected the row of epoch 2, got that of epoch 1"):
        train(RECIPE, folder, threads=1)


def test_a_row_that_was_never_trained_is_trained(one_epoch, finished, copied):
    """With an epoch and a step of its own, so that nothing but the checkpoint shows it."""
    folder = copied(one_epoch)
    rewrite(folder, lambda rows: [*rows, ["2", "6", *rows[-1][2:]]])
    result = train(RECIPE, folder, threads=1)
    assert result.finished
    assert not result.already_finished
    rows = read_metrics(finished / "metrics.csv")
    assert [row.train_loss for row in result.history] == [row.train_loss for row in rows]


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("column", [1, 2, 5, 7, 8])
def test_a_number_that_was_edited(finished, copied, row, column):
    folder = copied(finished)
    rewrite(folder, lambda rows: edited(rows, row, column, str(4 + row) if column == 1 else "0.5"))
    with pytest.raises(CheckpointError, match=f"row of epoch {row + 1} that the run's checkpoint holds"):
        train(RECIPE, folder, threads=1)


def test_metrics_of_another_run(finished, one_epoch, copied, tmp_path):
    folder = copied(one_epoch)
    other = RECIPE.override(["training.seed=1"])
    train(other, tmp_path / "other", threads=1)
    shutil.copy(tmp_path / "other" / "metrics.csv", folder)
    with pytest.raises(CheckpointError, match="copied from another run"):
        train(RECIPE, folder, threads=1)
    # Neither is the checkpoint gone on with.
    assert len(read_metrics(folder / "metrics.csv")) == 2


def test_an_unfinished_run_is_compared_too(one_epoch, copied):
    folder = copied(one_epoch)
    rewrite(folder, lambda rows: edited(rows, 0, 2, "0.5"))
    with pytest.raises(CheckpointError, match="row of epoch 1 that the run's checkpoint holds"):
        train(RECIPE, folder, threads=1)


def test_a_damaged_last_checkpoint_takes_its_epoch_with_it(finished, copied):
    folder = copied(finished)
    last = max((folder / "checkpoints").iterdir())
    (last / "state.pt").write_bytes(b"damaged")
    assert not RunFolder(folder).result(RECIPE).finished
    with pytest.warns(UserWarning, match="going on from the checkpoint before"):
        result = train(RECIPE, folder, threads=1)
    assert result.finished
    rows = read_metrics(finished / "metrics.csv")
    assert [row.test_loss for row in result.history] == [row.test_loss for row in rows]


def test_metrics_alone_are_finished_where_there_is_no_checkpoint(finished, copied, monkeypatch):
    folder = copied(finished)
    shutil.rmtree(folder / "checkpoints")
    monkeypatch.setattr(run, "Loop", None)
    assert train(RECIPE, folder, threads=1).already_finished
