"""The C++ kernels among threads and processes: called from many, forked away from, given fewer than asked."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch.autograd import grad
from torch.utils.data import DataLoader, Dataset

from cases import flat, make_layer
from momentumrnn import backend
from momentumrnn.kernels.extension import extension, forced_isa, missing
from momentumrnn.kernels.plan import forced

pytestmark = [
    pytest.mark.skipif(extension() is None, reason=str(missing())),
    # Python warns of forks in a process with threads; they are what is tested here.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PATIENCE = 60  # seconds until what should have ended counts as hanging
# Cell, rule, T, B, D, H: small, and each with remainders of its own.
PROBLEMS = [
    ("lstm", "none", 5, 3, 2, 17),
    ("gru", "none", 7, 2, 1, 9),
    ("rnn_modrelu", "none", 9, 4, 3, 5),
    ("lstm", "heavy_ball", 4, 5, 2, 16),
    ("gru", "adam", 6, 3, 1, 8),
    ("lstm_original", "rmsprop", 5, 2, 3, 7),
    ("rnn_tanh", "nesterov", 8, 3, 2, 33),
    ("lstm", "adam", 3, 6, 17, 4),
]


@pytest.fixture
def two_threads():
    """With torch on two threads, all of them awake."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def problem(cell, rule, T, B, D, H):
    layer = make_layer(cell, rule, input_size=D, hidden_size=H).float()
    return layer, torch.randn(T, B, D)


def results(layer, x):
    """All that a layer returns, and all its gradients."""
    with backend("cpu"):
        output, state = layer(x)
        loss = output.square().sum() + sum(part.sum() for part in flat(state))
        return [part.detach() for part in (output, *flat(state), *grad(loss, list(layer.parameters())))]


def same_bits(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def together(works):
    """Run functions at the same time, each in a thread; raise what one of them raises."""
    start, raised = threading.Barrier(len(works)), []

    def run(work):
        try:
            start.wait(PATIENCE)
            work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a thread hangs"
    if raised:
        raise raised[0]


def test_eight_threads_compute_what_each_does_alone():
    problems = [problem(*sizes) for sizes in PROBLEMS]
    alone = [results(*each) for each in problems]

    def work(each, expected):
        for _ in range(200):
            assert same_bits(results(*each), expected)

    together([lambda k=k: work(problems[k], alone[k]) for k in range(8)])


def test_threads_share_one_layer():
    layer, x = problem("lstm", "adam", 6, 4, 2, 20)
    inputs = [x * k for k in range(4)]
    alone = [results(layer, each) for each in inputs]

    def work(k):
        for _ in range(50):
            assert same_bits(results(layer, inputs[k]), alone[k])

    together([lambda k=k: work(k) for k in range(4)])


@pytest.mark.parametrize("split", ["rows", "units"])
def test_threads_with_teams_of_their_own(split):
    problems = [problem(*sizes) for sizes in PROBLEMS[:4]]
    with forced(split, True, 2):
        alone = [results(*each) for each in problems]

        def work(each, expected):
            for _ in range(25):
                assert same_bits(results(*each), expected)

        together([lambda k=k: work(problems[k], alone[k]) for k in range(4)])


def test_another_instruction_set_may_be_chosen_while_others_compute():
    """Also between a forward pass and its backward pass."""
    names = extension().isas()
    layer, x = problem("lstm", "adam", 6, 4, 2, 20)
    expected, done = results(layer, x), threading.Event()

    def work():
        try:
            for _ in range(100):
                for a, b in zip(results(layer, x), expected, strict=True):
                    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        finally:
            done.set()

    def choose():
        while not done.is_set():
            for name in names:
                with forced_isa(name):
                    time.sleep(1e-4)

    together([work, choose])


@pytest.mark.parametrize("threads", [5, 16])
def test_more_threads_than_cores(threads):
    layer, x = problem("gru", "none", 20, 11, 3, 70)
    expected = results(layer, x)
    with forced("units", True, threads):
        assert same_bits(results(layer, x), expected)
    with forced("rows", True, threads):
        first = results(layer, x)
        assert same_bits(results(layer, x), first)
    for a, b in zip(first, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_barrier_without_a_core_for_everyone_is_passed():
    """Several teams that meet at every step, with far more members than cores."""
    layer, x = problem("rnn_tanh", "none", 30, 2, 1, 130)
    with forced("units", True, 6):
        expected = results(layer, x)

        def work():
            for _ in range(3):
                assert same_bits(results(layer, x), expected)

        together([work] * 4)


def exit_code(child):
    """Wait for a forked child of ours, but not forever."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "it hangs"


def in_a_child(check):
    """Whether ``check`` holds in a forked process: 0 if so, 1 if not, 2 if it raises."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            code = 0 if check() else 1
        finally:
            os._exit(code)
    return exit_code(child)


@needs_fork
@pytest.mark.parametrize("split", ["rows", "units"])
def test_a_forked_process_computes_the_same(split, two_threads):
    """OpenMP's threads do not come along, and its runtime would wait for them forever."""
    problems = [problem(*sizes) for sizes in PROBLEMS]
    with forced(split, True, 2):
        expected = [results(*each) for each in problems]

        def check():
            torch.set_num_threads(2)
            return all(same_bits(results(*each), e) for each, e in zip(problems, expected, strict=True))

        for _ in range(3):
            assert in_a_child(check) == 0
            # Nor does the parent lose its own.
            assert check()
        assert in_a_child(lambda: check() and in_a_child(check) == 0) == 0


LOADED_IN_THE_CHILD = """
import os
import torch
import momentumrnn
from momentumrnn.kernels.extension import extension

torch.set_num_threads(2)
# Large enough for torch to begin its threads.
(torch.randn(4_000_000) * 2).sum()
layer = momentumrnn.LSTM(4, 64).requires_grad_(False)
child = os.fork()
if child == 0:
    layer(torch.randn(200, 32, 4))
    os._exit(0 if extension() is not None else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@needs_fork
def test_kernels_that_are_loaded_in_a_forked_process():
    """Nobody was there to notice the fork but this package in Python."""
    with subprocess.Popen([sys.executable, "-c", LOADED_IN_THE_CHILD], start_new_session=True) as parent:
        try:
            assert parent.wait(PATIENCE) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)


@needs_fork
def test_a_process_forked_from_within_a_thread_computes_the_same(two_threads):
    layer, x = problem("lstm", "heavy_ball", 5, 4, 2, 33)
    codes = []
    with forced("units", True, 2):
        expected = results(layer, x)

        def fork():
            codes.append(in_a_child(lambda: same_bits(results(layer, x), expected)))

        together([fork, fork])
    assert codes == [0, 0]


@needs_fork
def test_a_fork_while_another_thread_is_inside(two_threads):
    """The pool is locked by that thread now and then, and there is nobody in the child to unlock it."""
    layer, x = problem("lstm", "none", 60, 20, 1, 64)
    expected, stop, calls = results(layer, x), threading.Event(), []

    def work():
        while not stop.is_set():
            assert same_bits(results(layer, x), expected)
            calls.append(1)

    def fork():
        try:
            for _ in range(25):
                code = in_a_child(lambda: same_bits(results(layer, x), expected))
                assert code == 0, code
        finally:
            stop.set()

    together([work, work, fork])
    assert calls


def compute(layer, x, queue):
    torch.set_num_threads(2)
    with forced("units", True, 2):
        queue.put([part.tolist() for part in results(layer, x)])


@needs_fork
def test_processes_of_multiprocessing(two_threads):
    layer, x = problem("gru", "adam", 6, 5, 2, 40)
    context = multiprocessing.get_context("fork")
    with forced("units", True, 2):
        expected = [part.tolist() for part in results(layer, x)]
    queue = context.Queue()
    children = [context.Process(target=compute, args=(layer, x, queue)) for _ in range(2)]
    for child in children:
        child.start()
    try:
        assert [queue.get(timeout=PATIENCE) for _ in children] == [expected] * 2
    finally:
        for child in children:
            child.join(5)
            if child.is_alive():
                child.kill()


class Encoded(Dataset):
    """Sequences as a layer leaves them."""

    def __init__(self, layer, sequences):
        self.layer, self.sequences = layer, sequences

    def __len__(self):
        return len(self.sequences)

    def __getitem__(self, index):
        with torch.no_grad():
            return self.layer(self.sequences[index])[0]


@needs_fork
def test_workers_that_load_data_may_run_a_layer(two_threads):
    layer, _ = problem("lstm", "heavy_ball", 1, 1, 2, 256)
    # As large as what the kernels take from their pool.
    sequences = [torch.randn(1100, 2) for _ in range(6)]
    with forced("units", True, 2):
        data = Encoded(layer, sequences)
        expected = [data[k] for k in range(6)]
        assert expected[0].nbytes > 1 << 20
        loader = DataLoader(data, 2, num_workers=2, timeout=PATIENCE, multiprocessing_context="fork")
        loaded = [each for batch in loader for each in batch]
    assert same_bits(loaded, expected)


FEWER = """
import sys
import torch
sys.path.insert(0, sys.argv[1])
import test_cpp_threads as tests

torch.save(tests.on_three_threads(), sys.argv[2])
"""


def on_three_threads():
    """Results that the number of threads asked for determines, whoever then runs them."""
    torch.manual_seed(0)
    torch.set_num_threads(3)
    found = []
    for sizes, split in itertools.product([("lstm", "none", 9, 7, 2, 70), PROBLEMS[4]], ["rows", "units"]):
        with forced(split, True, 3):
            found += results(*problem(*sizes))
    return found


@pytest.mark.parametrize(
    "limit",
    [{"OMP_THREAD_LIMIT": "1"}, {"OMP_THREAD_LIMIT": "2"}],
    ids=str,
)
def test_fewer_threads_than_asked_for_give_the_same(limit, tmp_path):
    before = torch.get_num_threads()
    try:
        expected = on_three_threads()
    finally:
        torch.set_num_threads(before)
    here = os.path.dirname(__file__)  # noqa: PTH120
    run = subprocess.run(
        [sys.executable, "-c", FEWER, here, str(tmp_path / "results.pt")],
        env={**os.environ, **limit, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert same_bits(torch.load(tmp_path / "results.pt", weights_only=True), expected)
