"""Wrong answers that nobody thought of: the labs' own, changed at one place by a machine.

A mutant is wrong if its results differ from the model answer's on what the checks asked it. Every
wrong one has to lose points; there are at least eight for each function that a lab asks for.
"""

import ast
import copy
import functools
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

from course_utils import checks
from course_utils.labs import _engine

LABS = Path(__file__).resolve().parents[2] / "notebooks/labs"
NAMES = checks._LABS
# Masks are drawn at random: with the columns in another order they are as good as before.
AS_GOOD = {"draw_masks": {"mirrored", "columns moved"}}


def marks(cell):
    return cell.metadata.get("nbgrader", {})


@functools.cache
def lab(name):
    """A lab's answers: the names they need, {function: its source}, {function: its checks}."""
    names, sources, tests = {"checks": checks, "__name__": "lab"}, {}, {}
    notebook = nbformat.read(LABS / name / f"{name}.ipynb", 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        if marks(cell).get("grade_id") == "setup":
            continue
        for statement in ast.parse(cell.source).body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                exec(ast.unparse(statement), names)
            elif isinstance(statement, ast.FunctionDef) and marks(cell).get("solution"):
                sources[statement.name] = statement
                exec(ast.unparse(statement), names)
    for cell in cells:
        if marks(cell).get("grade"):
            calls = [c for c in ast.walk(ast.parse(cell.source)) if isinstance(c, ast.Call)]
            for call in calls:
                first = getattr(call.args[0], "id", "") if call.args else ""
                if ast.unparse(call.func).startswith("checks.") and first in sources:
                    tests.setdefault(first, []).append(ast.unparse(call))
    return names, sources, tests


def arrays_of(result):
    """A result as a list of arrays, or of one thing that is no array."""
    parts = result if isinstance(result, tuple) else (result,)
    try:
        return [np.asarray(part, np.float64) for part in parts]
    except (TypeError, ValueError):
        return [result]


def differ(one, other):
    """Whether two results are not the same, by more than checks leave room for."""
    one, other = arrays_of(one), arrays_of(other)
    if [np.shape(a) for a in one] != [np.shape(a) for a in other]:
        return True
    with np.errstate(all="ignore"):
        return any(
            not np.array_equal(np.isfinite(a), np.isfinite(b))
            or np.abs(a - b)[np.isfinite(a)].max(initial=0)
            > 5e-3 * np.abs(b[np.isfinite(b)]).max(initial=1e-9)
            for a, b in zip(one, other, strict=True)
        )


def watched(mutant, reference, seen):
    """The mutant, which notes in `seen` that a result differed from the reference's."""

    @functools.wraps(reference)
    def function(*arguments, **named):
        kept = copy.deepcopy([a for a in arguments if isinstance(a, np.ndarray)])
        try:
            result = mutant(*arguments, **named)
        except Exception:
            seen.append("stops")
            raise
        now = iter(kept)
        again = [next(now) if isinstance(a, np.ndarray) else a for a in arguments]
        if not seen and differ(result, reference(*again, **named)):
            seen.append("differs")
        return result

    return function


def of_results(reference):
    """Mutants by what is done to the results: each a label and a function."""

    def each(change):
        def mutant(*arguments, **named):
            result = reference(*arguments, **named)
            if isinstance(result, tuple):
                return type(result)((change(np.asarray(result[0], float)), *result[1:]))
            return change(np.asarray(result, float))

        return mutant

    def dropped(a):
        a = a.copy()
        a[(0,) * a.ndim] = 0
        return a

    changes = {
        "opposite sign": np.negative,
        "one more": lambda a: a + 1,
        "doubled": lambda a: 2 * a,
        "constant": lambda a: np.full(a.shape, a.mean()),
        "zero": np.zeros_like,
        "nothing negative": lambda a: np.maximum(a, 0),
        "first left out": dropped,
        "transposed": np.transpose,
        "upside down": lambda a: a[::-1] if a.ndim else a,
        "mirrored": lambda a: a[..., ::-1] if a.ndim else a,
        "rows moved": lambda a: np.roll(a, 1, 0) if a.ndim else a,
        "columns moved": lambda a: np.roll(a, 1, -1) if a.ndim else a,
        "one image": lambda a: np.broadcast_to(a[:1], a.shape) if a.ndim > 1 else a,
        "one too few": lambda a: a[:-1] if a.ndim else a,
    }
    for label, change in changes.items():
        yield label, each(change)
    first = []

    def same_again(*arguments, **named):
        first[:] = first or [reference(*arguments, **named)]
        return first[0]

    yield "the first result for all calls", same_again


def of_source(function):
    """Mutants by one change of the source: each a label and a definition."""
    nodes = list(ast.walk(function))
    for place, node in enumerate(nodes):
        for label, changed in changes_of(node):
            tree = copy.deepcopy(function)
            target = list(ast.walk(tree))[place]

            class Swap(ast.NodeTransformer):
                def visit(self, each, target=target, changed=changed):
                    return changed if each is target else self.generic_visit(each)

            yield (
                f"{label} in {ast.unparse(node)[:60]}",
                ast.fix_missing_locations(Swap().visit(tree)),
            )


OTHER = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
OTHER |= {ast.FloorDiv: ast.Div, ast.MatMult: None, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}
OTHER |= {ast.Lt: ast.Gt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.LtE: ast.Lt}
OTHER |= {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
CALLS = {"min": "max", "max": "min", "sum": "mean", "mean": "sum", "minimum": "maximum"}
CALLS |= {"maximum": "minimum", "all": "any", "any": "all", "argmax": "argmin"}


def changes_of(node):
    """What can be changed in a piece of code: labels, and what takes its place."""
    if isinstance(node, ast.BinOp) and OTHER.get(type(node.op)):
        yield "operator", ast.BinOp(node.left, OTHER[type(node.op)](), node.right)
        yield "left dropped", node.right
        yield "right dropped", node.left
    if isinstance(node, ast.Compare) and OTHER.get(type(node.ops[0])):
        yield "comparison", ast.Compare(node.left, [OTHER[type(node.ops[0])]()], node.comparators)
    if isinstance(node, ast.UnaryOp):
        yield "sign dropped", node.operand
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield "constant", ast.Constant(node.value + 1)
        if node.value:
            yield "constant", ast.Constant(node.value - 1)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        if name in CALLS:
            other = copy.deepcopy(node)
            if isinstance(node.func, ast.Attribute):
                other.func.attr = CALLS[name]
            else:
                other.func.id = CALLS[name]
            yield f"{CALLS[name]} for {name}", other
        if len(node.args) > 1:
            other = copy.deepcopy(node)
            other.args[:2] = other.args[1::-1]
            yield "arguments swapped", other
        if node.args and name not in ("range", "zip", "len"):
            yield "call dropped", node.args[0]


def mutants_of(name, function):
    """All mutants of one of a lab's functions: each a label and a function."""
    names, sources, _ = lab(name)
    yield from of_results(names[function])
    for label, definition in of_source(sources[function]):
        space = dict(names)
        try:
            exec(compile(ast.Module([definition], []), "<mutant>", "exec"), space)
        except (SyntaxError, TypeError, ValueError):
            continue
        if function in space:
            yield label, space[function]


def verdict(name, function, mutant):
    """Whether a mutant was seen to be wrong, and what the first check says that refuses it."""
    names, _, tests = lab(name)
    seen = []
    space = names | {function: watched(mutant, names[function], seen)}
    for test in tests[function]:
        try:
            with np.errstate(all="ignore"):
                eval(test, dict(space))
        except checks.NotYet as error:
            return True, str(error)
    return bool(seen), None


# Checks of these ask TensorFlow, and take seconds for all mutants.
LONG = {"parameter_count", "feature_map", "sensitivity", "log_odds_gradient"}
LONG |= {"pooled_features", "ascend", "share_turned"}
ALL = [
    pytest.param(name, function, marks=[pytest.mark.slow] * (function in LONG))
    for name in NAMES
    for function in lab(name)[2]
]
SHORT = ("occlusion", "lime", "grad_cam")
EACH = [pytest.param(name, marks=[pytest.mark.slow] * (name not in SHORT)) for name in NAMES]


@pytest.mark.parametrize(("name", "function"), ALL)
def test_every_mutant_that_is_wrong_loses_points(name, function, capsys):
    wrong, through = 0, []
    for label, mutant in mutants_of(name, function):
        if label in AS_GOOD.get(function, ()):
            continue
        is_wrong, said = verdict(name, function, mutant)
        wrong += is_wrong
        if is_wrong and said is None:
            through.append(label)
    assert not through
    assert wrong >= 8


@pytest.mark.parametrize("name", EACH)
def test_no_mistake_that_has_a_sentence_is_told_another_one(name, monkeypatch, capsys):
    names, _, tests = lab(name)
    asked = []

    def compare(yours, right, *, what, mistakes=None, tolerance=1e-4, axes=_engine.MAP):
        asked.append((what, np.asarray(right, float), mistakes or {}, tolerance))
        _engine.compare(yours, right, what=what, tolerance=tolerance, axes=axes)

    own = getattr(checks, name).__name__  # and what is split off from it, checks_of_...
    for module in [m for of, m in sys.modules.items() if of.startswith(own)]:
        if hasattr(module, "compare"):
            monkeypatch.setattr(module, "compare", compare)
    other = []
    for test in (test for of_one in tests.values() for test in of_one):
        asked.clear()
        eval(test, dict(names))
        for sentence in dict.fromkeys(s for _, _, mistakes, _ in asked for s in mistakes):
            named = first_told(sentence, asked)
            if named not in (sentence, None):
                other.append((test, sentence, named))
    assert not other


def first_told(sentence, asked):
    """What who makes one mistake throughout is told first."""
    for _, right, mistakes, tolerance in asked:
        if sentence in mistakes:
            wrong = np.asarray(mistakes[sentence], float)
            room = tolerance * max(np.abs(right).max(initial=0), 1e-12)
            if not _engine._same(wrong, right, room):
                same = (s for s, w in mistakes.items() if _engine._same(np.asarray(w), wrong, room))
                return next(same, None)
    return None
