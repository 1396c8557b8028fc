"""Write the notebooks that students get: no solutions, no hidden tests, no outputs.

    python notebooks/labs/tools/release.py [folder]      (make labs; the folder is _build/labs)

The work is nbgrader's; here is only what it has to know of this repository.
"""

import argparse
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from nbgrader.apps import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from traitlets.config import Config

BIN = str(Path(sys.executable).parent)
if BIN not in os.environ["PATH"].split(os.pathsep):  # nbgrader calls programs of its environment
    os.environ["PATH"] = os.pathsep.join([BIN, os.environ["PATH"]])
LABS = Path(__file__).resolve().parents[1]
COURSE = "opening-the-black-box"
STUDENT = LABS.parents[1] / "_build" / "labs"


def names():
    """The names of the labs, each that of a folder and of the notebook in it."""
    return sorted(path.stem for path in LABS.glob("*/*.ipynb") if path.stem == path.parent.name)


def course(folder):
    """Return nbgrader's API on a course, whose folder holds source, release, submitted, ..."""
    config = Config()
    config.CourseDirectory.root = str(Path(folder).resolve())
    config.CourseDirectory.course_id = COURSE
    config.NbGraderAPI.log_level = "ERROR"
    return NbGraderAPI(CourseDirectory(config=config), config=config)


def generate(folder, labs):
    """Let nbgrader release labs inside a course's folder; returns its API, with a gradebook."""
    api = course(folder)
    for lab in labs:
        source = Path(folder) / "source" / lab
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir(parents=True)
        shutil.copyfile(LABS / lab / f"{lab}.ipynb", source / f"{lab}.ipynb")
        result = api.generate_assignment(lab)
        if not result["success"]:
            raise RuntimeError(f"nbgrader could not release the lab {lab!r}:\n{result['log']}")
    return api


def release(folder=STUDENT, labs=None):
    """Write `folder`/NAME/NAME.ipynb for each lab, and `folder`/labs.zip with all of them."""
    folder = Path(folder)
    labs = labs or names()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        generate(scratch, labs)
        for lab in labs:
            (folder / lab).mkdir(exist_ok=True)
            made = Path(scratch) / "release" / lab / f"{lab}.ipynb"
            shutil.copyfile(made, folder / lab / f"{lab}.ipynb")
    with zipfile.ZipFile(folder / "labs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for lab in labs:
            archive.write(folder / lab / f"{lab}.ipynb", f"labs/{lab}/{lab}.ipynb")
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=STUDENT, help="where they go")
    folder = release(parser.parse_args().folder)
    print(f"The students' notebooks are in {folder}, and labs.zip holds them all.")
