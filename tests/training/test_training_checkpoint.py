import hashlib
import json

import pytest
import torch

from momentumrnn.errors import CheckpointError
from momentumrnn.training.checkpoint import (
    MANIFEST,
    STATE,
    WEIGHTS,
    Checkpoint,
    load_latest_checkpoint,
    save_checkpoint,
)
from momentumrnn.training.files import discard_unfinished


def checkpoint(number: int) -> Checkpoint:
    weight = torch.full((3, 2), float(number))
    state = {"step": number, "rng": torch.get_rng_state(), "history": [{"epoch": 1, "validation_loss": None}]}
    # A view, strided and shared, as a tied or transposed parameter would be.
    return Checkpoint({"weight": weight, "transposed": weight.t()}, state)


def test_last_two_are_kept(tmp_path):
    for number in range(12):
        save_checkpoint(tmp_path, checkpoint(number))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000011", "000012"]
    latest = load_latest_checkpoint(tmp_path)
    assert latest.state["step"] == 11
    assert torch.equal(latest.weights["transposed"], torch.full((2, 3), 11.0))


def test_none_at_all(tmp_path):
    assert load_latest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("file", ["model.safetensors", "state.pt", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_last_one_is_noticed_and_the_one_before_used(tmp_path, file, damage):
    save_checkpoint(tmp_path, checkpoint(1))
    path = save_checkpoint(tmp_path, checkpoint(2)) / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(bytes(content) if damage == "flip" else bytes(content[:-5]))
    with pytest.warns(UserWarning, match=r"000002.* damaged.*going on from the checkpoint before, .*000001"):
        assert load_latest_checkpoint(tmp_path).state["step"] == 1
    # The damaged one is none of the two that are kept, and is there still.
    assert save_checkpoint(tmp_path, checkpoint(3)).name == "000002"
    assert len(list(tmp_path.glob("000002.*.damaged"))) == 1
    (tmp_path / "000002" / "state.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"000002.* damaged.*000001"):
        assert load_latest_checkpoint(tmp_path).state["step"] == 1


def test_one_that_cannot_be_read_in_spite_of_its_checksum(tmp_path):
    save_checkpoint(tmp_path, checkpoint(1))
    last = save_checkpoint(tmp_path, checkpoint(2))
    (last / "state.pt").write_bytes(b"no state at all")
    sums = {name: hashlib.sha256((last / name).read_bytes()).hexdigest() for name in (WEIGHTS, STATE)}
    (last / MANIFEST).write_text(json.dumps({"sha256": sums}))
    with pytest.warns(UserWarning, match=r"000002 cannot be read.*going on from the checkpoint before"):
        assert load_latest_checkpoint(tmp_path).state["step"] == 1


def test_all_damaged_is_an_error_and_destroys_nothing(tmp_path):
    for number in (1, 2):
        (save_checkpoint(tmp_path, checkpoint(number)) / "state.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint is usable.*delete the run folder"):
        load_latest_checkpoint(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_killed_writer_left_is_no_checkpoint(tmp_path):
    save_checkpoint(tmp_path, checkpoint(1))
    (tmp_path / ".000002.dead.tmp").mkdir()
    (tmp_path / ".000002.dead.tmp" / "state.pt").write_bytes(b"half")
    (tmp_path / ".best.safetensors.dead.tmp").write_bytes(b"half")
    assert load_latest_checkpoint(tmp_path).state["step"] == 1
    discard_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["000001"]


def test_a_failed_write_leaves_no_trace(tmp_path):
    with pytest.raises(Exception, match=r"pickle|local object"):
        save_checkpoint(tmp_path, Checkpoint({"weight": torch.zeros(1)}, {"bad": lambda: None}))
    assert list(tmp_path.iterdir()) == []
