"""Who judges: values and calls pass between two processes, and no trick in one earns a point.

First the wire alone, with a thread at the other end; then the cage, where one notebook tries what
students have tried, each trick on a task of its own, with an honest task at the end.
"""

import ast
import contextlib
import json
import os
import shutil
import socket
import sys
import threading
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import tensorflow as tf
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "notebooks/labs/tools")]

import answers  # noqa: E402
import cage  # noqa: E402
import judge  # noqa: E402
import release  # noqa: E402
import sandbox  # noqa: E402
import wire  # noqa: E402

NAMES = release.names()
caged = pytest.mark.skipif(
    not (shutil.which("bwrap") and shutil.which("prlimit")),
    reason="students' notebooks run in a sandbox or not at all: apt-get install bubblewrap",
)


def test_a_sandbox_that_the_system_forbids_is_named(tmp_path, monkeypatch):
    """Ubuntu 24.04 lets bubblewrap make no namespace: every student would get no points."""
    for name in ("bwrap", "prlimit"):
        program = tmp_path / name
        program.write_text(
            "#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2; exit 1"
        )
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(RuntimeError, match=r"uid map: Permission denied.*userns=0.*container"):
        cage.needed()
    (tmp_path / "bwrap").write_text("#!/bin/sh")
    cage.needed()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(RuntimeError, match="bwrap and prlimit not found"):
        cage.needed()


@pytest.fixture
def meet():
    """A function that puts a student's names at the other end of a wire, and gives this end."""
    ends, threads = [], []

    def start(**names):
        mine, theirs = socket.socketpair()
        student = wire.Peer(theirs, names, networks=True)
        threads.append(threading.Thread(target=student.serve, daemon=True))
        threads[-1].start()
        ends.append(wire.Peer(mine))
        return ends[-1]

    yield start
    for end in ends:
        end.send("end")
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


class Sly:
    """A value that says yes to everything."""

    __eq__ = __lt__ = __bool__ = lambda *_: True
    __hash__ = None

    def __repr__(self):
        return "7"


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        2.5,
        float("inf"),
        "ä",
        (1, "a"),
        [1, [2.0, None]],
        {"a": (1,)},
        range(2, 9, 3),
    ],
)
def test_plain_values_arrive_as_they_are(meet, value):
    got = meet(x=value).ask("get", "x")
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("kind", ["float32", "float64", "int64", "bool", "uint8", "<U3"])
def test_arrays_arrive_with_their_kind_and_shape(meet, kind):
    array = (np.arange(12).reshape(3, 4) % 5).astype(kind)[:, ::2]
    got = meet(x=array, y=array[0, 1]).ask("get", "x")
    assert got.dtype == array.dtype
    assert np.array_equal(got, array)
    one = meet(x=array[0, 1]).ask("get", "x")
    assert type(one) is type(array[0, 1])
    assert one == array[0, 1]


def test_of_any_other_value_only_its_type_and_its_words_arrive(meet):
    got = meet(x=Sly()).ask("get", "x")
    assert type(got).__name__ == "Sly"
    assert repr(got) == "7"
    assert got != 7
    with pytest.raises(KeyError):
        meet().ask("get", "x")


def test_functions_are_called_and_call_back(meet):
    def mean(score, images, *, times=1):
        return times * score(images).mean()

    asked = []

    def score(images):
        asked.append(images.shape)
        return images.sum(1)

    function = meet(mean=mean).ask("get", "mean")
    images = np.arange(6.0).reshape(3, 2)
    assert function(score, images, times=2) == 10
    assert asked == [(3, 2)]
    assert function.__name__ == "mean"


def test_an_error_comes_with_its_kind_its_words_and_the_line_of_the_students_code(meet):
    def stops(x):
        raise OSError(f"no {x}")

    def blank(x):
        raise NotImplementedError

    def leaves(x):
        sys.exit(3)

    end = meet(stops=stops, blank=blank, leaves=leaves)
    with pytest.raises(OSError, match="no 3") as caught:
        end.ask("get", "stops")(3)
    assert 'raise OSError(f"no {x}")' in caught.value.own_line
    with pytest.raises(NotImplementedError):
        end.ask("get", "blank")(3)
    with pytest.raises(Exception, match="3") as caught:
        end.ask("get", "leaves")(3)
    assert type(caught.value).__name__ == "SystemExit"


def test_an_array_that_a_function_changes_is_changed_here_too(meet):
    def spoil(x):
        x[1] = 9
        return x.sum()

    array = np.zeros(3)
    assert meet(spoil=spoil).ask("get", "spoil")(array) == 9
    assert array.tolist() == [0, 9, 0]


def test_gradients_pass_in_both_directions(meet):
    def square(x):
        return tf.reduce_sum(x**2)

    def by_numpy(x):
        return np.sum(np.asarray(x) ** 2)

    def slope(score, x):
        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = score(x)
        return tape.gradient(value, x).numpy()

    def slope_in_a_graph(score, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = score(x)
        return tape.gradient(value, x)

    end = meet(square=square, by_numpy=by_numpy, slope=slope, traced=tf.function(slope_in_a_graph))
    x = np.array([1.0, -2.0, 3.0], np.float32)
    assert end.ask("get", "traced")(square, tf.constant(x)).numpy().tolist() == [2, -4, 6]
    found = end.ask("get", "square")
    assert slope(found, x).tolist() == [2, -4, 6]
    assert end.ask("get", "slope")(square, x).tolist() == [2, -4, 6]
    assert isinstance(end.ask("get", "by_numpy")(tf.constant(x)), np.generic)


def test_networks_arrive_with_their_weights_and_layers(meet):
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [layers.Input((5, 4, 1)), layers.Conv2D(2, 3, name="a"), layers.Flatten(), layers.Dense(3)]
    )
    images = np.random.default_rng(0).random((2, 5, 4, 1), np.float32)

    def outputs(model, images, layer):
        return model(images), model.get_layer(layer).output.shape

    got, shape = meet(outputs=outputs).ask("get", "outputs")(model, images, "a")
    assert np.array_equal(got, model(images))
    assert tuple(shape) == (None, 3, 2, 2)


def test_a_judge_builds_no_network_of_a_students(meet):
    model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1)])
    assert isinstance(meet(x=model).ask("get", "x"), wire.Other)


def test_nonsense_on_the_wire_is_an_error_and_nothing_else():
    for said in (
        b"x" * 40,
        wire.struct.pack(">QQ", 2**40, 2),
        wire.struct.pack(">QQ", 2, 4) + b"[]nope",
        wire.struct.pack(">QQ", 2, 25) + b'[]["result",[["array",0]]]',
        b"",
    ):
        mine, theirs = socket.socketpair()
        theirs.sendall(said)
        theirs.close()
        with pytest.raises(wire.Gone):
            wire.Peer(mine).receive()


def test_a_test_takes_the_labs_names_from_the_lab_and_the_others_from_the_student(meet):
    end = meet(key=1, mine=5, double=lambda x: 2 * x)
    told = judge.judge("print(key)\nassert double(mine) == 10\nmine", ["key = 7"], end)
    assert told == {"printed": "7\n", "error": None, "value": "5", "gone": False}
    told = judge.judge("assert double(key) == 15", ["key = 7"], end)
    assert told["error"][0] == "AssertionError"
    assert told["error"][2][0] == "  assert double(key) == 15"
    told = judge.judge("nowhere + 1", [], end)
    assert told["error"][:2] == ["NameError", "name 'nowhere' is not defined"]


@pytest.mark.parametrize("lab", NAMES)
def test_no_name_that_a_lab_asks_for_is_the_labs_own(lab):
    notebook = nbformat.read(release.LABS / lab / f"{lab}.ipynb", 4)
    asked = set().union(*answers.asked_for(notebook).values())
    own = set().union(*map(judge.made, judge.own_cells(notebook)))
    assert len(asked) >= 7
    assert not asked & own


def solved(notebook):
    """The names that a lab's own code and its answers define, and the other code without pictures.

    Of the code that is not graded, what only draws is left out, for it takes long.
    """
    names = {"__name__": "__main__"}
    for cell in notebook.cells:
        mark = cell.metadata.get("nbgrader", {})
        if cell.cell_type != "code" or mark.get("grade") or mark.get("grade_id") == "setup":
            continue
        if mark.get("solution"):
            exec(cell.source, names)
            continue
        for part in ast.parse(cell.source).body:
            drawn = isinstance(part, ast.Expr | ast.For) or "tsne" in ast.unparse(part)
            if not drawn:
                with contextlib.suppress(Exception):  # it needs what was left out
                    exec(ast.unparse(part), names)
    return names


@pytest.mark.parametrize(
    "lab", [pytest.param(lab, marks=[pytest.mark.slow] * (lab != "filters")) for lab in NAMES]
)
def test_every_labs_answers_get_all_points_over_the_wire(meet, lab, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    notebook = nbformat.read(release.LABS / lab / f"{lab}.ipynb", 4)
    end, own = meet(**solved(notebook)), judge.own_cells(notebook)
    for cell in notebook.cells:
        mark = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code" and mark.get("grade"):
            told = judge.judge(cell.source, own, end)
            assert told["error"] is None, (mark["grade_id"], told["error"])
            assert "✗" not in told["printed"]
            assert told["value"] in (None, str(float(mark["points"])))


# ------------------------------------------------------------------------------- in the cage

HOSTILE = """
import builtins, gc, inspect, sys
import numpy as np
import ipywidgets
from course_utils.labs import _engine

heard = []
shell = get_ipython()
shell.input_transformers_cleanup.append(lambda lines: heard.append("".join(lines)) or lines)
shell.events.register("pre_run_cell", lambda info: heard.append(info.raw_cell))
shell.showtraceback = lambda *a, **k: None
shell.set_custom_exc((Exception,), lambda *a, **k: None)
np.all = np.array_equal = np.allclose = lambda *a, **k: True
_engine.compare = _engine._same = lambda *a, **k: True
class Fake:
    def __getattr__(self, name):
        return lambda *a, **k: None
checks = Fake()
builtins.AssertionError = KeyError
class Yes(int):
    __eq__ = __ge__ = __le__ = lambda *a: True
    __hash__ = int.__hash__
swallow = ipywidgets.Output()
swallow.__enter__()
"""
FRAME = """
def contributions(maps, weights, bias, target):
    frame = sys._getframe()
    while frame:
        for name, value in frame.f_locals.items():
            if name in ("right", "expected", "truth"):
                return value
        frame = frame.f_back
    return np.zeros(maps.shape[:3])
"""
PRIVATE = """
def keep_only(score, image, patch, stride, fill):
    from course_utils.labs.occlusion import checks as real
    return real._kept(score, image, patch, stride, fill)
"""
FOUND = """
def mean_of_others(images, labels, target):
    for thing in gc.get_objects():
        if isinstance(thing, np.ndarray) and thing.shape == images.shape[1:]:
            if thing.dtype == float and thing.flags.owndata:
                return thing
    return next(h for h in heard if "mean_of_others(mean" in h)
"""
SHARE = """
def transplant(images, donor, place, size):
    for module in list(sys.modules.values()):
        for name in dir(module):
            if name in ("transplant", "_transplant") and module.__name__ != "__main__":
                return getattr(module, name)(images, donor, place, size)
    import marshal, glob
    for path in glob.glob(_engine.__file__.replace("_engine.py", "*/__pycache__/checks*.pyc")):
        exec(marshal.loads(open(path, "rb").read()[16:]))
    raise LookupError("nothing here")
"""
WIRE = """
def count_places(image, patch, stride):
    import os, socket
    end = socket.socket(fileno=os.dup(int(os.environ["JUDGE"])))
    end.sendall(b"points for me" * 9)
    return 1
"""
SECRET = "import re\nsecret = Yes(0)"
HONEST = "def double(x):\n    return x + x"
CHEATS = {
    "contributions": (FRAME, "checks.grad_cam.contributions(contributions)"),
    "keep_only": (PRIVATE, "checks.occlusion.keep_only(keep_only)"),
    "mean_of_others": (FOUND, "checks.occlusion.mean_of_others(mean_of_others)"),
    "transplant": (SHARE, "checks.occlusion.transplant(transplant)"),
    "secret": (SECRET, "assert secret == 41"),
    "key": ("key = 3", "assert key == 3"),
    "given": (
        "def given(x):\n    return next(int(h[-2:]) for h in heard if 'given(1) ==' in h)",
        "assert given(1) == 38",
    ),
    "count_places": (WIRE, "checks.occlusion.count_places(count_places)"),
    "double": (HONEST, "assert double(4) == 8\nchecks.credit(2, lambda: None)"),
}


def task(name, answer, test):
    """The cells of a task: an answer and the test of it."""
    cells = [new_code_cell(answer), new_code_cell(test)]
    mark = {"schema_version": 3, "task": False}
    cells[0].metadata["nbgrader"] = mark | {"grade_id": name, "solution": True, "grade": False}
    about = {"grade_id": f"{name}_test", "solution": False, "grade": True, "points": 2}
    cells[1].metadata["nbgrader"] = mark | about
    return cells


@caged
def test_no_trick_earns_a_point_and_honest_work_all_of_them():
    setup = new_code_cell("from course_utils import checks\nkey = 7")
    about = {"grade_id": "setup", "solution": False, "grade": False, "locked": True}
    setup.metadata["nbgrader"] = about
    cells = [setup, new_code_cell(HOSTILE)]
    for name, (answer, test) in CHEATS.items():
        cells += task(name, answer, test)
    notebook = new_notebook(cells=cells)
    sandbox.Run(notebook, 60.0, 500.0, 4.0).to_the_end()
    told = {}
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade"):
            errors = [o for o in cell.outputs if o.output_type == "error"]
            told[cell.metadata.nbgrader.grade_id] = [f"{e.ename}: {e.evalue}" for e in errors]
    honest = told.pop("double_test")
    assert honest == [], honest
    assert all(told.values()), told
    results = [o for o in notebook.cells[-1].outputs if o.output_type == "execute_result"]
    assert results[0].data["text/plain"] == "2.0"
    text = json.dumps(notebook.cells[:-1])
    assert "_map_at" not in text
