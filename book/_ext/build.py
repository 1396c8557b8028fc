"""Build the site: write the labs, execute what changed, make the pages.

In one process, so that TensorFlow is imported once: on Linux, kernels are forks of it, and so is
what reads the package for its page. While it is imported, another process writes the labs.
"""

import subprocess
import sys

import execute

LABS = execute.ROOT / "notebooks/labs/tools/release.py"


def main():
    """Exit with 0 when the site is built, as Jupyter Book does, or with what stopped it."""
    with subprocess.Popen([sys.executable, LABS], stdout=subprocess.DEVNULL) as labs:
        execute.processes()
    if labs.returncode:
        sys.exit(labs.returncode)
    execute.main()
    from jupyter_book.cli.main import main as jupyter_book

    jupyter_book(["build", str(execute.ROOT), "-W", "--keep-going", "-q"])


if __name__ == "__main__":
    main()
