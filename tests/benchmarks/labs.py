"""How long the labs' cells take with all tasks solved, and how long it takes to grade a notebook.

Needs the `labs` extra, bubblewrap, 4 GB and about five minutes on two quiet cores:
python tests/benchmarks/labs.py
"""

import sys
import tempfile
import time
from pathlib import Path

from _bench import ROOT, publish, table

sys.path[:0] = [str(ROOT / "book/_ext"), str(ROOT / "notebooks/labs/tools")]

import execute  # noqa: E402
import grade  # noqa: E402
import nbformat  # noqa: E402
import release  # noqa: E402

COPIES, JOBS = 4, 2
TEXT = """What the cells of a lab take from first to last, every task solved and every check \
run, one lab at a time; and the most memory that its process held.

{labs}

To grade {copies} solved notebooks of the lab on occlusion, {jobs} at a time, took {seconds:.0f} \
seconds: {each:.0f} a notebook."""


def main():
    """Run every lab's solution, grade some notebooks, and write the section."""
    rows, numbers = [], {}
    for lab in release.names():
        path = release.LABS / lab / f"{lab}.ipynb"
        _, result = execute.execute_apart(path, set())
        if result["failure"]:
            sys.exit(f"{lab}: {result['failure']}")
        title = nbformat.read(path, 4).cells[0].source.splitlines()[0].removeprefix("# Lab: ")
        rows.append((title, f"{result['seconds']:.0f} s", f"{result['megabytes']:,} MB"))
        numbers[lab] = result
        print(*rows[-1], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(COPIES):
            student = Path(folder) / "submitted" / f"student {number}"
            student.mkdir(parents=True)
            (student / "occlusion.ipynb").write_bytes(
                (release.LABS / "occlusion/occlusion.ipynb").read_bytes()
            )
        begun = time.monotonic()
        graded = grade.grade(Path(folder) / "submitted", Path(folder) / "grades", jobs=JOBS)
        seconds = time.monotonic() - begun
    assert {row["points"] for row in graded} == {16}, graded
    text = TEXT.format(
        labs=table(("", "time", "memory"), rows),
        copies=COPIES,
        jobs=JOBS,
        seconds=seconds,
        each=seconds / COPIES,
    )
    publish("labs", "The labs", text, numbers | {"grading": seconds / COPIES})


if __name__ == "__main__":
    main()
