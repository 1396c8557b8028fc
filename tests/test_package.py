"""The package as a house: what stands on what, and no import that runs upward."""

import ast
import graphlib
from pathlib import Path

import pytest

import course_utils

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "course_utils"
# From the ground up. Every module that has no place here is an explanation, or helps with one.
FLOORS = {
    "datasets": 1,
    "models": 2,
    "explanations": 3,
    "metrics": 4,
    "plots": 4,
    "quiz": 4,
    "scatter": 5,
    "at_scale": 5,
    "photo": 5,
    "labs": 6,
}


def imports(folder):
    """What each module of the package imports of the package, also inside its functions."""
    modules = {
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): path
        for path in folder.rglob("*.py")
        if path != folder / "__init__.py"
    }
    found = {}
    for name, path in modules.items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.Import):
                named = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{name} imports by a relative name"
                named = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for whole in named:
                package, _, of = whole.partition(".")
                if package == "course_utils":
                    found[name].add(of if of in modules else of.rpartition(".")[0] or of)
    return found


def floor(module):
    top = module.split(".")[0]
    return 0 if top.startswith("_") else FLOORS.get(top, FLOORS["explanations"])


def problems(folder):
    """What in a package does not keep to the order of the house."""
    wrong = []
    for module, of in imports(folder).items():
        for other in sorted(of):
            if other.startswith("labs") and not module.startswith("labs"):
                wrong.append(f"{module} imports {other}: the package does not know the classroom")
            elif floor(other) > floor(module):
                wrong.append(f"{module} imports {other}, which stands above it")
            elif floor(module) == floor(other) == FLOORS["explanations"]:
                wrong.append(f"{module} imports {other}: an explanation does without the others")
            elif floor(module) == FLOORS["explanations"] and other == "datasets":
                wrong.append(f"{module} imports datasets: an explanation is given its images")
    return wrong


def test_every_module_is_offered_described_and_tested():
    modules = {path.stem for path in PACKAGE.glob("[!_]*.py")}
    page = (PACKAGE.parent / "book/api.md").read_text(encoding="utf8")
    missing = {
        "__all__": modules - set(course_utils.__all__),
        "book/api.md": {name for name in modules if f":: course_utils.{name}\n" not in page},
        "tests/": {name for name in modules if not (TESTS / f"test_{name}.py").is_file()},
        "course_utils/": set(course_utils.__all__) - modules - {"checks", "labs"},
    }
    assert not any(missing.values()), missing


def test_no_import_runs_upward_and_no_explanation_imports_another():
    assert len(imports(PACKAGE)) > 30
    assert problems(PACKAGE) == []


def test_no_module_imports_itself_by_a_detour():
    graphlib.TopologicalSorter(imports(PACKAGE)).prepare()


@pytest.mark.parametrize(
    ("module", "line", "expected"),
    [
        ("cam", "from course_utils import gradients", "cam imports gradients: an explanation"),
        ("shapley", "from course_utils.lime_image import superpixels", "shapley imports lime_imag"),
        ("cam", "from course_utils.plots import show_heatmap", "cam imports plots, which stands"),
        ("cam", "import course_utils.datasets", "cam imports datasets: an explanation is given"),
        ("_scores", "from course_utils.models import load_trained", "_scores imports models"),
        ("photo", "def f():\n    from course_utils import labs", "photo imports labs: the package"),
        ("models", "from course_utils.labs._engine import call", "models imports labs._engine"),
    ],
)
def test_what_does_not_keep_to_the_order_is_found(module, line, expected, tmp_path):
    for name in ("datasets", "models", "gradients", "lime_image", "plots", "photo", "_scores"):
        (tmp_path / f"{name}.py").touch()
    (tmp_path / "labs").mkdir()
    (tmp_path / "labs/__init__.py").touch()
    (tmp_path / "labs/_engine.py").touch()
    (tmp_path / f"{module}.py").write_text(line + "\n")
    (found,) = problems(tmp_path)
    assert found.startswith(expected)
