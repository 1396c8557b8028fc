"""What a cell says that needs a task which is still open: one sentence."""

import sys

import pytest
from IPython.core.interactiveshell import InteractiveShell

from course_utils.labs import _open

STUB = "def half(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()"
SOLVED = "def half(x):\n    return x / 2"


@pytest.fixture
def shell(monkeypatch):
    shell = InteractiveShell()
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: shell)
    _open.watch()
    return shell


def says(shell, *cells):
    """What the last of some cells shows of its error, as lines."""
    shown = []
    shell._showtraceback = lambda kind, error, lines: shown.append("\n".join(lines))
    for cell in cells[:-1]:
        shell.run_cell(cell, store_history=True)
    shown.clear()
    assert not shell.run_cell(cells[-1], store_history=True).success
    assert len(shown) == 1
    return shown[0]


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ([STUB, "half(4)"], "half, which has no code yet."),
        ([STUB, "import math", "[half(x) for x in (1, 2)]"], "half, which has no code yet."),
        ([STUB, "def all_of(x):\n    return half(x)", "all_of(1)"], "half, which has no code yet."),
        ([STUB, "y = half(4)", "print(y)"], "y, which a cell above makes once it runs to its end."),
        (["a = ...", "a + 1"], "a, which has no value yet."),
        (["a, b = ..., ...", "b['x'] + a"], "b and a, which have no value yet."),
    ],
)
def test_a_cell_that_needs_an_open_task_says_so_in_a_sentence(shell, cells, sentence):
    assert says(shell, *cells) == f"Still open: this cell needs {sentence}"


def test_a_stub_itself_waits_for_an_answer(shell):
    said = says(shell, "a = ...\n# YOUR CODE HERE\nraise NotImplementedError()")
    assert said == "Still open: this cell waits for your answer in place of what raises the error."


@pytest.mark.parametrize(
    "cells",
    [
        [SOLVED, "half('x')"],
        [STUB, SOLVED, "half(1) / 0"],
        ["a = 1", "a + b"],
        ["a = ...", "a = 2", "a / 0"],
        ["import io", "io.IOBase().fileno()"],
        ["class Odd:\n    def half(self): raise NotImplementedError", STUB, "Odd().half()"],
        ["1 +"],
    ],
)
def test_every_other_error_is_shown_as_ever(shell, cells):
    assert "Still open" not in says(shell, *cells)


def test_a_sentence_of_a_check_stays(shell):
    said = says(shell, "a = ...", "from course_utils import checks\nraise checks.NotYet(f'{a}!')")
    assert said == "Not yet: Ellipsis!"


def test_outside_of_a_notebook_nothing_is_watched(monkeypatch):
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)
    _open.watch()
