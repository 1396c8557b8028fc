"""CONTRIBUTING is true: what it says is done in a copy of the repository, and the tests agree."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")
SECTIONS = dict(re.findall(r"^## (.+)\n\n((?:\d+\. .+\n)+)", TEXT, re.MULTILINE))
AN_EXAMPLE = {"NAME_map": "occlusion_map", "NN_name": "03_occlusion", "NAME": "occlusion"}


@pytest.mark.parametrize("section", SECTIONS)
def test_each_list_has_ten_lines_and_names_what_exists(section):
    assert [*SECTIONS] == ["A method", "A chapter", "A lab", "An explorable"]
    steps = SECTIONS[section]
    assert re.findall(r"^(\d+)\. ", steps, re.MULTILINE) == [str(n) for n in range(1, 11)]
    steps = steps.replace("explorables/NAME", "explorables/cover")
    for placeholder, name in AN_EXAMPLE.items():
        steps = steps.replace(placeholder, name)
    paths = re.findall(r"`([\w./]+/[\w./]*|\w+\.(?:toml|yml))`", steps)
    assert len(paths) >= 4
    assert [path for path in paths if not (ROOT / path).exists()] == []
    targets = re.findall(r"`make ([\w-]+)`", steps)
    makefile = (ROOT / "Makefile").read_text(encoding="utf8")
    assert targets
    assert all(re.search(rf"^[a-z -]*\b{target}\b[a-z -]*:", makefile, re.M) for target in targets)


@pytest.fixture
def copy(tmp_path):
    """What is under version control, or would be, somewhere else."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for file in listed:
        if (ROOT / file).is_file():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / file, tmp_path / file)
    return tmp_path


def add(path, after, what):
    """Put a line into a file, after the first one that holds `after`."""
    lines = path.read_text(encoding="utf8").splitlines(keepends=True)
    place = next(i for i, line in enumerate(lines) if after in line)
    path.write_text("".join([*lines[: place + 1], what + "\n", *lines[place + 1 :]]))


def run_tests(copy, *arguments):
    """Run tests of the copy with the copy's own package; returns how it ended and what it said."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    run = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    return run.returncode, run.stdout + run.stderr


METHOD = '''"""Pixels weighed by their own value: no explanation, and a baseline for them."""

from course_utils._shared import check_images, check_targets


def brightness_map(model, images, targets):
    """Return the mean over the channels, whatever the model says: float32 (N, height, width)."""
    images = check_images(model, images)
    check_targets(model, targets, len(images))
    return images.mean(axis=-1)
'''
ITS_SECTION = """
## Brightness

```{eval-rst}
.. automodule:: course_utils.brightness
   :members:
```
"""
ITS_TEST = '''"""The brightness is the mean over the channels."""

import keras
import numpy as np
import pytest

from course_utils import brightness

MODEL = keras.Sequential([keras.Input((2, 2, 2)), keras.layers.Flatten(), keras.layers.Dense(2)])


def test_it_is_the_mean_over_the_channels():
    images = np.float32([1, 3]) * np.ones((1, 2, 2, 1), np.float32)
    found = brightness.brightness_map(MODEL, images, 0)
    np.testing.assert_allclose(found, np.full((1, 2, 2), 2), rtol=1e-6)
    with pytest.raises(ValueError, match="target 2 does not exist"):
        brightness.brightness_map(MODEL, images, 2)
'''


def add_a_lab(copy):
    room = copy / "course_utils/labs/copied"
    shutil.copytree(copy / "course_utils/labs/filters", room)
    material = (room / "material.py").read_text(encoding="utf8")
    (room / "material.py").write_text(material.replace("make_stripes", "weave_stripes"))
    add(copy / "pyproject.toml", '"course_utils.labs"', '    "course_utils.labs.copied",')
    names = copy / "course_utils/labs/__init__.py"
    add(names, "_GIVEN = {", '    "copied": ("weave_stripes",),')
    checks = copy / "course_utils/labs/checks.py"
    checks.write_text(checks.read_text(encoding="utf8").replace("_LABS = (", '_LABS = ("copied", '))
    (copy / "notebooks/labs/copied").mkdir()
    notebook = (copy / "notebooks/labs/filters/filters.ipynb").read_text(encoding="utf8")
    notebook = notebook.replace("checks.filters", "checks.copied")
    notebook = notebook.replace("make_stripes", "weave_stripes")
    (copy / "notebooks/labs/copied/copied.ipynb").write_text(notebook)
    (copy / "book/lab_copied.md").write_text("```{lab} copied\n```\n")
    add(copy / "_toc.yml", "book/lab_filters", "      - file: book/lab_copied")
    add(copy / "book/labs.md", "(lab_filters.md)", "| [Copied](lab_copied.md) | chapter | what |")
    its_tests = (copy / "tests/labs/test_filters.py").read_text(encoding="utf8")
    (copy / "tests/labs/test_copied.py").write_text(its_tests.replace(".filters\n", ".copied\n"))
    (copy / "data/build/lab_copied.py").write_text('"""Train the network of the copied lab."""\n')


def test_a_method_a_chapter_and_a_lab_are_added(copy):
    (copy / "course_utils/brightness.py").write_text(METHOD)
    text = (copy / "notebooks/01_model_summary.ipynb").read_text(encoding="utf8")
    (copy / "notebooks/97_copied.ipynb").write_text(re.sub(r'"# 0?1\b', '"# 97', text, count=1))
    files = ["tests/test_package.py", "tests/test_book.py", "tests/test_notebooks.py"]
    wanted = "test_package or 97_copied or contents"
    code, said = run_tests(copy, *files, "-k", wanted)
    assert code == 1
    assert said.count("'brightness'") >= 3, said  # not offered, not described, not tested
    assert "notebooks/97_copied" in said, said  # not in the contents
    add(copy / "course_utils/__init__.py", '"attack"', '    "brightness",')
    with (copy / "book/api.md").open("a", encoding="utf8") as page:
        page.write(ITS_SECTION)
    (copy / "tests/test_brightness.py").write_text(ITS_TEST)
    add(copy / "_toc.yml", "21_your_own_photo", "      - file: notebooks/97_copied")
    add_a_lab(copy)
    files += ["tests/test_brightness.py", "tests/labs/test_labs.py"]
    wanted += " or test_brightness or everywhere or (copied and (its or graded or opens))"
    code, said = run_tests(copy, *files, "-k", wanted)
    assert code == 0, said


@pytest.mark.slow
def test_an_added_lab_is_handed_out_and_its_solution_gets_every_point(copy):
    add_a_lab(copy)
    code, said = run_tests(copy, "tests/labs/test_labs.py", "-k", "copied")
    assert code == 0, said


def test_an_explorable_is_added(copy):
    folder = copy / "book/explorables"
    script = (folder / "cover.js").read_text(encoding="utf8")
    (folder / "copied.js").write_text(script.replace('explorable("cover"', 'explorable("copied"'))
    (copy / ".venv").symlink_to(ROOT / ".venv")  # node's programs
    made = copy / "_build/explorables"
    (made / "data").mkdir(parents=True)  # the networks are there already
    digest = [sys.executable, "-c", "import bundle; print(bundle.made_from(), end='')"]
    digest = subprocess.run(digest, cwd=folder, capture_output=True, text=True, check=True).stdout
    (made / "data.sha256").write_text(digest)
    command = [sys.executable, folder / "bundle.py", "copied"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert 'data-explorable="copied"' in (made / "copied.html").read_text(encoding="utf8")
    assert '"copied"' in (made / "explorables/copied.js").read_text(encoding="utf8")
