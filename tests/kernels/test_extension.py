"""How the C++ kernels are found, what is said where there are none, and which instruction set they run on."""

import os
import re
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from types import ModuleType

import pytest

from momentumrnn.errors import BackendError
from momentumrnn.kernels import extension as loader

CHECKOUT = Path(__file__).parents[2]
KERNELS = "momentumrnn.kernels._cpu"


class StubKernels(ModuleType):
    """What the loader needs of the C++ module, on a processor with two instruction sets."""

    def __init__(self):
        super().__init__(KERNELS)
        self.chosen = "avx2"

    def isas(self):
        return ["avx2", "baseline"]

    def isa(self):
        return self.chosen

    def use_isa(self, name):
        if name not in self.isas():
            raise ValueError(name)
        self.chosen = name


@pytest.fixture
def fresh(monkeypatch):
    """A process in which nothing has been loaded or warned about yet."""
    monkeypatch.setattr(loader, "_warned", False)
    monkeypatch.setattr(loader, "_loaded", None)
    monkeypatch.delenv("MOMENTUMRNN_ISA", raising=False)
    return monkeypatch


def load_with(monkeypatch, outcome):
    """Have the import of the C++ module return or raise ``outcome``."""

    def import_module(name):
        assert name == KERNELS
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(loader.importlib, "import_module", import_module)


@pytest.fixture
def absent(fresh):
    load_with(fresh, ModuleNotFoundError(f"No module named {KERNELS!r}", name=KERNELS))


@pytest.fixture
def stub(fresh):
    kernels = StubKernels()
    load_with(fresh, kernels)
    return kernels


def test_without_the_module_it_says_why_and_how_to_get_it(absent):
    assert loader.extension() is None
    text = loader.missing()
    assert "were not built when momentumrnn was installed" in text
    for part in ("GCC or Clang", "g++", "xcode-select --install", "pip install --force-reinstall"):
        assert part in text


def test_a_damaged_module_is_told_from_an_absent_one(fresh):
    load_with(fresh, ImportError("_cpu.so: undefined symbol: _ZSt4cout"))
    assert loader.extension() is None
    text = loader.missing()
    assert "undefined symbol: _ZSt4cout" in text
    assert "pip install --force-reinstall" in text
    assert "were not built" not in text


def test_another_missing_module_is_not_hidden(fresh):
    load_with(fresh, ModuleNotFoundError("No module named 'torch'", name="torch"))
    with pytest.raises(ModuleNotFoundError, match="torch"):
        loader.extension()


def test_it_warns_once(absent):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loader.warn_if_missing()
        loader.warn_if_missing()
    assert [(w.category, str(w.message)) for w in caught] == [(RuntimeWarning, loader.missing())]


def test_the_warning_shows_the_line_outside_of_the_package(absent):
    # As if a layer had called it, with torch.nn.Module between.
    inner = {"__name__": "momentumrnn.layers.base", "warn": loader.warn_if_missing}
    exec("def forward():\n    warn()", inner)
    outer = {"__name__": "torch.nn.modules.module", "forward": inner["forward"]}
    exec("def call():\n    forward()", outer)
    with pytest.warns(RuntimeWarning) as caught:
        outer["call"]()
    assert caught[0].filename == __file__


def test_with_the_module_nothing_is_missing(stub):
    assert loader.extension() is stub
    assert loader.missing() is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader.warn_if_missing()
    assert stub.chosen == "avx2"


def test_threads_load_it_once(fresh):
    loads = []

    def import_module(name):
        loads.append(name)
        time.sleep(0.01)
        return StubKernels()

    fresh.setattr(loader.importlib, "import_module", import_module)
    threads = [threading.Thread(target=loader.extension) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == [KERNELS]


def test_the_environment_forces_an_instruction_set(stub, monkeypatch):
    monkeypatch.setenv("MOMENTUMRNN_ISA", "baseline")
    assert loader.extension().isa() == "baseline"


def test_an_instruction_set_that_is_not_there(stub, monkeypatch):
    monkeypatch.setenv("MOMENTUMRNN_ISA", "avx512")
    for _ in range(2):  # not only at the first call
        with pytest.raises(BackendError) as caught:
            loader.extension()
    text = str(caught.value)
    assert "MOMENTUMRNN_ISA" in text
    assert "among avx2, baseline, got 'avx512'; did you mean 'avx2'?" in text


def test_a_forced_instruction_set_is_restored(stub):
    with loader.forced_isa("baseline"):
        assert stub.isa() == "baseline"
    assert stub.isa() == "avx2"
    with pytest.raises(KeyError), loader.forced_isa("baseline"):
        raise KeyError
    assert stub.isa() == "avx2"
    with pytest.raises(BackendError, match="among avx2, baseline, got 'sse'"), loader.forced_isa("sse"):
        pass


def test_no_instruction_set_can_be_forced_without_the_module(absent):
    with pytest.raises(BackendError, match="were not built"), loader.forced_isa("baseline"):
        pass


IN_A_PROCESS = f"""
import sys
import momentumrnn
from momentumrnn.kernels.extension import extension

print({KERNELS!r} in sys.modules)
kernels = extension()
print(kernels and kernels.isa())
"""


def test_in_a_process_of_its_own():
    """Importing the package leaves the kernels alone; the first use of them obeys the environment."""
    command = [sys.executable, "-c", IN_A_PROCESS]
    environment = {**os.environ, "MOMENTUMRNN_ISA": "baseline"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["False", "None" if loader.extension() is None else "baseline"]


def test_a_misspelt_instruction_set(fresh):
    built = loader.extension()
    if built is None:
        pytest.skip(loader.missing())
    fresh.setattr(loader, "_loaded", None)
    fresh.setenv("MOMENTUMRNN_ISA", "basline")
    names = re.escape(", ".join(built.isas()))
    with pytest.raises(BackendError, match=f"among {names}, got 'basline'; did you mean 'baseline'?"):
        loader.extension()


def test_every_built_instruction_set_can_be_forced():
    built = loader.extension()
    if built is None:
        pytest.skip(loader.missing())
    before = built.isa()
    assert before in built.isas()
    assert built.isas()[-1] == "baseline"
    for name in built.isas():
        with loader.forced_isa(name):
            assert built.isa() == name
    assert built.isa() == before


def test_cmake_compiles_every_source():
    folder = "src/momentumrnn/kernels/csrc"
    lists = (CHECKOUT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert f"set(CSRC {folder})" in lists
    listed = re.findall(r"\$\{CSRC\}/([\w.]+)", lists)
    assert sorted(listed) == sorted(path.name for path in (CHECKOUT / folder).glob("*.cpp"))
