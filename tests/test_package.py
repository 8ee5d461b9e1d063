"""The package as a whole: imports go one way, importing it needs torch alone, every public name is there."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest

import momentumrnn

ROOT = Path(momentumrnn.__file__).parent
# The rooms in the order in which data flows through them; a room imports from itself and those before it.
ROOMS = [
    "rules",
    "kernels",
    "parametrizations",
    "layers",
    "analysis",
    "data",
    "tasks",
    "training",
    "results",
    "cli",
]
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] in ROOMS)


def imported_names(path):
    """(line, dotted name) of everything a module imports, wherever in the file the import stands."""
    package = ["momentumrnn", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def room_of(name):
    """The room a dotted name lives in; None where it is free to all: errors, other packages."""
    first, *rest = name.split(".")
    if first != "momentumrnn" or not rest:
        return None
    if rest[0] in ROOMS:
        return rest[0]
    home = getattr(getattr(momentumrnn, rest[0], None), "__module__", "").split(".")
    return home[1] if len(home) > 1 and home[1] in ROOMS else None


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_room_imports_only_from_itself_and_the_rooms_before_it(path):
    own = ROOMS.index(path.relative_to(ROOT).parts[0])
    for line, name in imported_names(path):
        room = room_of(name)
        assert room is None or ROOMS.index(room) <= own, f"{path.name}:{line} imports {name}"


def test_the_walk_sees_every_form_of_import():
    seen = {name for path in MODULES for _, name in imported_names(path)}
    assert any(name.startswith("momentumrnn.rules") for name in seen)
    assert room_of("momentumrnn.LSTM") == "layers"
    assert room_of("momentumrnn.backend") == "kernels"
    assert room_of("momentumrnn.errors.InputError") is None
    assert room_of("torch.nn") is None


def test_every_folder_with_code_is_a_room():
    folders = {path.relative_to(ROOT).parts[0] for path in ROOT.rglob("*.py") if path.parent != ROOT}
    assert folders <= {*ROOMS, "recipes"}  # recipes hold data, and an empty __init__
    for path in (ROOT / "recipes").glob("*.py"):
        assert not [
            n for n in ast.parse(path.read_text(encoding="utf-8")).body if not isinstance(n, ast.Expr)
        ]


def distributions_of(name, found):
    """Everything a distribution needs, its own needs included."""
    if name not in found:
        found.add(name)
        try:
            needs = requires(name) or []
        except PackageNotFoundError:
            return found
        for need in needs:
            if "extra ==" not in need:
                distributions_of(re.match(r"[\w.-]+", need).group(), found)
    return found


IMPORT_ALONE = '''
import sys

needed = set(sys.argv[1].split(","))
import torch

allowed = {name.partition(".")[0] for name in sys.modules}
allowed |= needed | set(sys.stdlib_module_names) | {"momentumrnn"}

class Hide:
    """Finds what another finder finds, as if nothing but the allowed packages were installed."""

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        first = name.partition(".")[0]
        if first in allowed or first.startswith("_sysconfigdata"):
            return self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Hide(finder) for finder in sys.meta_path]
import momentumrnn

for kind in (momentumrnn.MomentumLSTM, momentumrnn.MomentumGRU, momentumrnn.MomentumRNN):
    layer = kind(3, 5, momentum=0.6, step_size=0.6)
    layer(torch.randn(4, 2, 3))[0].sum().backward()
    momentumrnn.explain(layer, torch.randn(4, 2, 3))
print("\\n".join(name for name in sys.modules))
'''


def test_importing_and_using_it_needs_torch_alone():
    needed = {name.replace("-", "_").lower() for name in distributions_of("torch", set())}
    command = [sys.executable, "-c", IMPORT_ALONE, ",".join(sorted(needed))]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    modules = set(run.stdout.split())
    assert "momentumrnn.layers" in modules
    for package in ("lightning_fabric", "tyro", "rich", "sklearn", "pandas", "matplotlib", "pooch"):
        assert package not in modules
    for room in ("analysis", "data", "tasks", "training", "results", "cli"):
        assert f"momentumrnn.{room}" not in modules


LAYERS = ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"]
PAPER = ["MomentumRNN", "MomentumLSTM", "MomentumGRU", "NAGLSTM", "SRLSTM", "AdamLSTM", "RMSPropLSTM"]
PUBLIC = [*LAYERS, *PAPER, "rules", "errors", "backend", "explain"]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names(name):
    assert name in momentumrnn.__all__
    assert (getattr(momentumrnn, name).__doc__ or "").strip()


def test_all_is_true():
    for name in ("momentumrnn", "momentumrnn.rules", "momentumrnn.kernels", "momentumrnn.layers"):
        module = importlib.import_module(name)
        assert len(set(module.__all__)) == len(module.__all__)
        for name in module.__all__:
            assert hasattr(module, name), f"{module.__name__}.{name}"


def test_rules_are_public():
    for name in ["HeavyBall", "Nesterov", "ScheduledRestart", "Adam", "RMSProp"]:
        assert inspect.isclass(getattr(momentumrnn.rules, name))
        assert name in momentumrnn.rules.__all__
    for name in ["HeavyBallState", "NesterovState", "AdamState", "RMSPropState"]:
        assert issubclass(getattr(momentumrnn.rules, name), tuple)


def test_the_version_is_the_one_of_the_distribution():
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", momentumrnn.__version__)
