"""How recurrences are cut into Triton programs: no GPU is needed to choose."""

import pytest

from momentumrnn.kernels.cuda.tiling import Device, Tiling, stays_close, tiling, ways

H100, A100, SMALL = Device(132, 227 << 10), Device(108, 163 << 10), Device(20, 99 << 10)


@pytest.mark.parametrize("device", [H100, A100, SMALL])
@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize("gates", [1, 3, 4])
def test_whatever_is_chosen_fits_and_covers_everything(gates, itemsize, device):
    for hidden in (1, 16, 17, 158, 256, 512, 1150):
        for batch in (1, 16, 17, 128, 4097):
            way = tiling(hidden, gates, itemsize, batch, device)
            launches = way.launches(hidden, batch, device)
            assert [group for groups in launches for group in groups] == list(range(-(-batch // way.rows)))
            assert way.programs(hidden) * way.units >= hidden > (way.programs(hidden) - 1) * way.units
            if way.resident:
                assert way.padded >= hidden
                assert way.shared_memory(gates, itemsize) <= device.shared_memory
                # All that wait for one another have to run at once.
                assert max(map(len, launches)) * way.programs(hidden) <= device.processors
            else:
                assert len(launches) == 1


def test_without_tensor_cores_for_it_nothing_is_kept():
    turing = Device(40, 64 << 10, (7, 5))
    assert not stays_close(16, 1, 2, turing)
    assert tiling(16, 1, 2, 16, turing) == Tiling(False)


def test_what_does_not_fit_takes_a_launch_a_step():
    assert not stays_close(1150, 4, 4, H100)
    assert ways(1150, 4, 4, 128, H100) == (Tiling(False),)
    assert tiling(1150, 4, 8, 128, H100) == Tiling(False, 16, 16, 1, 16)


def test_a_small_gpu_keeps_less():
    assert [stays_close(hidden, 4, 4, H100) for hidden in (512, 513)] == [True, False]
    assert [stays_close(hidden, 4, 4, SMALL) for hidden in (64, 512)] == [True, False]


def test_no_launch_has_more_groups_than_cuda_takes():
    """65,535, in the second dimension of a grid."""
    launches = Tiling(False).launches(8, (1 << 20) + 1, H100)
    assert max(map(len, launches)) <= 65_535
    assert [group for launch in launches for group in launch] == list(range((1 << 16) + 1))


def test_a_launch_a_step_is_preferred_to_too_many_lots():
    """Of 32 programs for the same sequences a GPU of 40 processors runs one group at a time."""
    way = tiling(512, 4, 4, 8192, Device(40, 227 << 10))
    assert not way.resident
