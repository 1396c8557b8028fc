"""Whose work a teacher should look at: code that reaches for more than a task needs, and answers
of two students that are alike.

Nothing here takes a point. `strange` looks at one notebook, `alike` at a class.
"""

import ast
import contextlib
import difflib
import itertools
import re
from collections import Counter

from nbgrader.utils import determine_grade

from answers import ELSEWHERE, UNREADABLE

# Modules, names and attributes with which code looks into the machinery that runs it.
TOLD = {
    "_getframe": "looks into the frames of its callers",
    "currentframe": "looks into the frames of its callers",
    "f_back": "looks into the frames of its callers",
    "f_locals": "looks into the frames of its callers",
    "stack": "looks into the frames of its callers",
    "get_objects": "looks through the objects in memory",
    "get_referrers": "looks through the objects in memory",
    "get_ipython": "changes how cells are run",
    "input_transformers_cleanup": "changes how cells are run",
    "input_transformers_post": "changes how cells are run",
    "set_custom_exc": "changes how cells are run",
    "showtraceback": "changes how cells are run",
    "_engine": "uses what the checks are made of",
    "NotYet": "uses what the checks are made of",
    "load_digits": "opens the course's data",
    "load_arrays": "opens the course's data",
    "data_file": "opens the course's data",
    "subprocess": "starts programs or asks the network",
    "socket": "starts programs or asks the network",
    "urllib": "starts programs or asks the network",
    "requests": "starts programs or asks the network",
    "wire": "reaches for the judge",
    "JUDGE": "reaches for the judge",
}
MODULES = ("np", "numpy", "tf", "tensorflow", "keras", "checks", "labs", "builtins", "plt")
CHECKS = ("checks", "labs")
PRIVATE = "uses private parts of the checks"
TOKENS = 40  # that an answer has at least, to be compared: many write the same short one
WORDS = 12  # the same of an answer in words
MOST = 2000  # tokens of an answer that are compared; two of 5000 can take eight seconds
TOLD_OF = 20  # different things that are told of one notebook
ALIKE = 0.9  # share of two answers' tokens, in order, from which they are alike
MODEL = "the model answers"
ENOUGH = 2  # answers that are alike, for a pair to be told of
# How notes of answers.py and points.py end that are worth a look.
NOTED = ("nothing was answered", "was changed after you had marked it")


def own_code(notebook):
    """The sources of a student's own code, with a word on where each stands."""
    for number, cell in enumerate(notebook.cells, 1):
        mark = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code" and (not mark or mark.get("solution")):
            yield mark.get("grade_id", f"cell {number}"), cell.source


def strange(notebook):
    """Sentences on what a student's code reaches for that no task needs."""
    found = {}
    for place, source in own_code(notebook):
        try:
            tree = ast.parse(re.sub(r"(?m)^([ \t]*)[%!].*$", r"\1pass", source))
        except UNREADABLE:
            continue
        for node in ast.walk(tree):
            for what in reaches(node):
                found.setdefault(what, {})[place] = True
    told = [f"{what} ({', '.join(places)})" for what, places in found.items()]
    return told[:TOLD_OF] + [f"and {len(told) - TOLD_OF} things more"] * (len(told) > TOLD_OF)


def noted(note):
    """What a note says that a teacher should look into, sentence by sentence."""
    return [part for part in note.split("; ") if part.endswith(NOTED)]


def unheard(notebook):
    """A sentence on the tests of a lab's checks that gave all points and said no ✓, if any."""
    quiet = []
    for cell in notebook.cells:
        mark = cell.metadata.get("nbgrader", {})
        test = cell.cell_type == "code" and mark.get("grade")
        if test and re.search(r"\bchecks\.\w+\.\w+\(", cell.source):
            points, most = determine_grade(cell)
            said = "".join(output.get("text", "") for output in cell.outputs)
            if points == most and "✓" not in said:
                quiet.append(mark["grade_id"])
    return [f"full points, and no check said ✓ ({', '.join(quiet)})"] if quiet else []


def reaches(node):
    """What a piece of code reaches for."""
    if isinstance(node, ast.Name | ast.Attribute):
        name = node.id if isinstance(node, ast.Name) else node.attr
        stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if isinstance(node, ast.Attribute) and name.startswith("_") and root(node) in CHECKS:
            yield PRIVATE
        elif name in TOLD and (name != "stack" or root(node) == "inspect"):
            yield TOLD[name]
        if stored and root(node) in MODULES:
            yield f"gives {dotted(node)} another meaning"
    elif isinstance(node, ast.Import | ast.ImportFrom):
        module = getattr(node, "module", None) or ""
        names = [f"{module}.{alias.name}".strip(".") for alias in node.names]
        if any(re.match(r"course_utils\.labs\.(?!_engine)(_|\w+\.)", name) for name in names):
            yield PRIVATE
        if any("_engine" in name for name in names):
            yield TOLD["_engine"]
    elif isinstance(node, ast.Constant) and ".npz" in str(node.value):
        yield TOLD["data_file"]
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setattr":
        for module in {root(part) for part in node.args[:1]} & {*MODULES}:
            yield f"gives parts of {module} another meaning"


def dotted(node):
    """An expression such as a.b.c as it is written, or as far as a reader wants to know."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *parts[::-1]])[:100]


def root(node):
    """The name that an expression such as a.b.c begins with, or nothing."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return getattr(node, "id", "")


# ------------------------------------------------------------------------------- two students


def answers_of(notebook):
    """A notebook's answers that are long enough to compare: {task: tokens}."""
    found = {}
    for cell in notebook.cells:
        mark = cell.metadata.get("nbgrader", {})
        if not mark.get("solution") or cell.source == ELSEWHERE:
            continue
        code = cell.cell_type == "code"
        tokens = tokens_of(cell.source) if code else re.findall(r"\w+", cell.source.lower())
        if len(tokens) >= (TOKENS if code else WORDS):
            found[mark["grade_id"]] = tokens[:MOST]
    return found


def tokens_of(source):
    """Code as a list of tokens, without comments, docstrings, layout and the names it chose."""
    with contextlib.suppress(*UNREADABLE):
        source = unnamed(source)
    return re.findall(r"\w+|[^\w\s]", source)


def unnamed(source):
    """Code as `tokens_of` compares it; raises one of UNREADABLE where it is none."""
    tree = ast.parse(source)
    own = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.setdefault(node.id, f"name{len(own)}")
        if isinstance(node, ast.arg):
            own.setdefault(node.arg, f"name{len(own)}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = own.get(node.id, node.id)
        if isinstance(node, ast.arg):
            node.arg = own[node.arg]
    return ast.unparse(tree)


def alike(notebooks, blank, model):
    """Pairs of students whose answers are alike: (one, other, tasks that are, how many both have).

    `notebooks` is {student: notebook} of one lab, `blank` what was handed out, `model` the lab's
    own: a student whose answers are those makes a pair with "the model answers". An answer that a
    quarter of the class has, and at least four have, is what the task suggests, and no sign; but
    a whole notebook that is passed around is a sign however many have it.
    """
    given = answers_of(blank)
    answers = {student: answers_of(notebook) for student, notebook in notebooks.items()}
    answers |= {MODEL: answers_of(model)}
    for own in answers.values():
        for task in [task for task in own if own[task] == given.get(task)]:
            del own[task]
    like = {pair: same(*(answers[s] for s in pair)) for pair in itertools.combinations(answers, 2)}
    having = Counter(
        (student, task) for pair, tasks in like.items() for task in tasks for student in pair
    )
    few = max(4, len(notebooks) / 4)
    told = []
    for (one, other), tasks in like.items():
        both = len(answers[one].keys() & answers[other].keys())
        rare = [task for task in tasks if having[one, task] < few]
        if len(rare) >= min(ENOUGH, both) > 0 or (both > ENOUGH and len(tasks) >= ALIKE * both):
            told.append((one, other, tasks, both))
    return sorted(told, key=lambda pair: (-len(pair[2]), pair[0], pair[1]))


def same(one, other):
    """The tasks whose answers are alike in two students' {task: tokens}."""

    def share(task):
        pair = difflib.SequenceMatcher(None, one[task], other[task], autojunk=False)
        return min(pair.real_quick_ratio(), pair.quick_ratio()) >= ALIKE and pair.ratio()

    return sorted(task for task in one.keys() & other.keys() if share(task) >= ALIKE)
