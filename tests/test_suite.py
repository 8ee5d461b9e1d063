"""The tests themselves: none ends early and so counts as passed."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = sorted(TESTS.rglob("test_*.py"))


def early_ends(source):
    """(name, line) of every ``return`` of a test function; those of functions inside it are their own."""
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not function.name.startswith("test_"):
            continue
        nodes = list(function.body)
        while nodes:
            node = nodes.pop()
            if isinstance(node, ast.Return):
                yield function.name, node.lineno
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                nodes += ast.iter_child_nodes(node)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(TESTS).as_posix())
def test_no_test_returns_before_its_end(path):
    found = list(early_ends(path.read_text(encoding="utf-8")))
    assert not found, (
        f"{path.name}: {found} end early, and pytest counts that as passed. Leave the case out of the "
        "parameters, or call pytest.skip with the reason where the machine decides"
    )


def test_the_walk_sees_a_return_at_any_depth():
    source = """
def test_condition(x):
    if x:
        return
async def test_attempt():
    with block():
        for _ in range(3):
            try:
                run()
            except ValueError:
                return None
class TestGroup:
    def test_method(self):
        match self:
            case None:
                return
def test_whole():
    def helper():
        return 1
    assert helper() == (lambda: 1)()
def helper():
    return 2
"""
    assert sorted(early_ends(source)) == [("test_attempt", 11), ("test_condition", 4), ("test_method", 16)]
