"""Run chapters, labs and pages with Colab's versions, from an empty folder, with only the wheel.

`make colab-check`, once a week by a workflow. Needs a Python 3.12 or 3.13 and the network: it
makes an environment with Colab's versions (colab.txt), installs the wheel into it without its
dependencies, as the setup cell does, and executes the notebooks, each in a folder that holds
nothing else.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLAB = Path(__file__).with_name("colab.txt")


def find_python():
    """The Python that was named, or the one Colab has, or the nearest that it had."""
    named = [path for path in sys.argv[1:2] if path]
    found = named + [path for path in map(shutil.which, ("python3.12", "python3.13")) if path]
    if not found:
        sys.exit(
            "This needs Python 3.12, as Colab has, or 3.13. Where it is not on the path, name it: "
            "make colab-check COLAB_PYTHON=/where/it/is/python3.12"
        )
    return found[0]


def make_environment(folder):
    """Make the environment and return its Python."""
    subprocess.run([find_python(), "-m", "venv", folder / "env"], check=True)
    python = folder / "env/bin/python"
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    pip = [python, "-m", "pip", "install", "-qq"]
    subprocess.run([*pip, "--requirement", COLAB], check=True)
    subprocess.run([*pip, "--no-deps", next(folder.glob("*.whl"))], check=True)
    return python


def run(python, notebook, folder):
    """Execute one notebook in a folder of its own; return what went wrong, or nothing."""
    folder.mkdir()
    shutil.copy(notebook, folder)
    command = [python.parent / "jupyter-execute", "--timeout=600", notebook.name]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.stderr[-3000:] if done.returncode else ""


def main():
    """Run them all; exit with 1 if one failed."""
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        since = COLAB.read_text(encoding="utf8").splitlines()[0].removeprefix("# ")
        print(f"Making an environment with Colab's versions. {since}", flush=True)
        python = make_environment(folder)
        patterns = ("notebooks/*.ipynb", "notebooks/labs/*/*.ipynb", "book/*.ipynb")
        for notebook in (path for pattern in patterns for path in sorted(ROOT.glob(pattern))):
            begun = time.monotonic()
            error = run(python, notebook, folder / notebook.stem)
            failed += bool(error)
            seconds = time.monotonic() - begun
            print(
                f"{notebook.stem}: {'failed' if error else 'passed'}, {seconds:.0f} s", flush=True
            )
            print(error, end="")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
