"""What every chapter keeps to, to read the same on the site, in JupyterLab and on Colab."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
OPENING = ["**The question.**", "**You will be able to**", "**Time.**", "**It follows**"]
CLOSING = ["What you saw", "When it misleads", "Quiz", "Exercises", "Further reading"]
ALLOWED = {"course_utils", "numpy", "matplotlib", "keras", "tensorflow", "sklearn", "skimage"}
ALLOWED |= {"cv2", "scipy", "lime", "PIL", "IPython", "google"} | set(sys.stdlib_module_names)
DRAWS = re.compile(r"plt\.show\(\)|plots\.\w+\(|plot_model\(")


def read(path):
    """A notebook, and its code and text cells."""
    notebook = nbformat.read(path, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    text = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    return notebook, code, text


def without_magics(source):
    """Python that the parser takes: lines of IPython's own become comments."""
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)


pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_it_is_stripped_and_has_the_common_metadata(path):
    notebook, code, _ = read(path)
    # With the placeholder, and on Colab, it stops with a sentence that says what to set.
    monkeypatch.setitem(sys.modules, "google.colab", object())
    source = without_magics(code[0].source)
    if "--" in re.search(r'REPOSITORY = "(.+)"', source).group(1):
        with pytest.raises(RuntimeError, match="Set REPOSITORY above"):
            exec(source, {})
