"""How long the labs' cells take with all tasks solved, and how long it takes to grade a class.

Needs the `labs` extra, bubblewrap, 6 GB and about ten minutes on two quiet cores:
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
import release  # noqa: E402

STUDENTS, JOBS = 30, 2
BAR = 15 * 60  # seconds that a class may take on two cores
TEXT = """What the cells of a lab take from first to last, every task solved and every check \
run, one lab at a time; and the most memory that its process held. What the notebooks take that \
students are given, with the tasks still open, stands under [Time and memory](time_and_memory.md).

{labs}

To grade {students} students' solved notebooks of the lab on occlusion, {jobs} at a time, took \
{minutes:.1f} minutes, {each:.0f} seconds a notebook. To grade the same folder again, with one \
late notebook more, took {again:.0f} seconds."""


def main():
    """Run every lab's solution, grade a class, and write the section."""
    rows, numbers = [], {}
    paths = [release.LABS / lab / f"{lab}.ipynb" for lab in release.names()]
    for path, result in execute.execute_all(paths, 1):
        if result["failure"]:
            sys.exit(f"{path.stem}: {result['failure']}")
        title = result.pop("notebook").cells[0].source.splitlines()[0].removeprefix("# Lab: ")
        rows.append((title, f"{result['seconds']:.0f} s", f"{result['megabytes']:,} MB"))
        numbers[path.stem] = result
        print(*rows[-1], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        taken = []
        for handing_in in (range(STUDENTS), [STUDENTS]):  # all, and then one more, who is late
            for number in handing_in:
                student = Path(folder) / "submitted" / f"student {number}"
                student.mkdir(parents=True)
                solved = (release.LABS / "occlusion/occlusion.ipynb").read_bytes()
                (student / "occlusion.ipynb").write_bytes(solved)
            begun = time.monotonic()
            graded = grade.grade(Path(folder) / "submitted", Path(folder) / "grades", jobs=JOBS)
            taken.append(time.monotonic() - begun)
            assert {row["points"] for row in graded} == {16}, graded
    seconds, again = taken
    if seconds > BAR:
        sys.exit(f"Grading took {seconds:.0f} s, and {BAR} s are the bar.")
    text = TEXT.format(
        labs=table(("", "time", "memory"), rows),
        students=STUDENTS,
        jobs=JOBS,
        minutes=seconds / 60,
        each=seconds / STUDENTS,
        again=again,
    )
    publish("labs", "The labs, every task solved", text, numbers | {"grading": seconds / STUDENTS})


if __name__ == "__main__":
    main()
