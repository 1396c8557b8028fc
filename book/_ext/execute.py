"""Execute the notebooks that changed, in parallel, into the cache the site is built from.

A notebook is executed when its code changed, and all are when a file of the package, of the
data or the lock was touched, which the notebooks' own text cannot show. A notebook enters the
cache as soon as it is done, so an interrupted run loses only what was running.
"""

# ruff: noqa: E402
import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

# jsonschema would make a parser of addresses with it, which no notebook needs: over a second in
# each of these processes.
sys.modules.setdefault("rfc3987_syntax", None)

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "_build"
CACHE = BUILD / ".jupyter_cache"
GIVEN = BUILD / "given"
TIMEOUT = 600  # seconds for one cell
# As many notebooks run as there are cores. Several threads each would wait for each other (for
# small matrices most of the time: a chapter took three times as long), and round by their number.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
# Two pixels of a figure for one of the page, and little time for a PNG that becomes WebP.
FIGURES = [
    "--InlineBackend.figure_formats={'retina'}",
    "--InlineBackend.print_figure_kwargs={'bbox_inches': 'tight', "
    "'pil_kwargs': {'compress_level': 1}}",
]
ONE_THREAD = dict.fromkeys(_THREADS, "1")


def fingerprint():
    """A digest of everything besides a notebook's own code that decides what it puts out."""
    files = sorted(
        path
        for pattern in ("course_utils/**/*.py", "data/*", "data/photos/*", "requirements.lock")
        for path in ROOT.glob(pattern)
        if path.is_file()
    )
    digest = hashlib.sha256(sys.version.encode())
    for path in files:
        digest.update(f"{path.relative_to(ROOT)} {path.stat().st_mtime_ns}".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def open_cache():
    """The cache of executed notebooks, emptied if it was filled from other code or data."""
    stamp, current = BUILD / "executed_from", fingerprint()
    if not stamp.is_file() or stamp.read_text() != current:
        shutil.rmtree(CACHE, ignore_errors=True)
        forget_pages()
        BUILD.mkdir(exist_ok=True)
        stamp.write_text(current)
    return get_cache(CACHE)


def forget_pages():
    """Make Sphinx read every page anew: it cannot see that a notebook's outputs changed."""
    shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)


def is_cached(cache, path):
    """Whether the cache holds the outputs of this notebook's present code."""
    try:
        cache.match_cache_notebook(nbformat.read(path, 4))
    except KeyError:
        return False
    return True


def execute(path):
    """Run one notebook; return it with its outputs, failure, peak megabytes and seconds.

    Seconds are those of the clock and, which other work lengthens less, of the processor.
    """
    notebook = nbformat.read(path, 4)
    begun, started, failure = time.monotonic(), [], None
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": path.parent}},
        coalesce_streams=True,  # of a progress bar, keep what a terminal shows in the end
        extra_arguments=FIGURES,
        record_timing=False,  # times in a cell's metadata would hide it from the cache
        on_cell_execute=lambda cell, cell_index: started.append(cell_index),
    )
    log = BUILD / "logs" / f"{path.stem}.txt"
    log.parent.mkdir(exist_ok=True)
    try:
        with log.open("w") as kernel_log:
            client.execute(stdout=kernel_log, stderr=kernel_log)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        failure = describe(notebook, started[-1], error)
    kernel = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "notebook": notebook,
        "seconds": round(time.monotonic() - begun, 1),
        "processor": round(kernel.ru_utime + kernel.ru_stime, 1),
        "megabytes": round(kernel.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)),
        "failure": failure,
    }


def describe(notebook, index, error):
    """Say which cell failed and why, and show it."""
    what = getattr(error, "ename", type(error).__name__)
    why = getattr(error, "evalue", str(error))
    source = "\n".join(f"    {line}" for line in notebook.cells[index].source.splitlines())
    outputs = notebook.cells[index].outputs
    lines = [line for o in outputs if o.output_type == "error" for line in o.traceback]
    traceback = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(lines))
    return (
        f"cell {index + 1} of {len(notebook.cells)} failed with {what}: {why}\n\n"
        f"{source}\n\n{traceback}"
    )


def is_given(cell):
    """Whether a lab's cell of code runs as it is, with nothing that students have to write."""
    marks = cell.metadata.get("nbgrader", {})
    return cell.cell_type == "code" and marks and not (marks["grade"] or marks["solution"])


def write_given():
    """Write the cells that each lab gives, whose outputs its page shows, as notebooks; return them.

    The labs are those that release.py wrote.
    """
    written = []
    for path in sorted((BUILD / "labs").glob("*/*.ipynb")):
        if path.stem == path.parent.name:  # not one of the variants for a class's students
            notebook = nbformat.read(path, 4)
            notebook.cells = [notebook.cells[0], *filter(is_given, notebook.cells)]
            written.append(GIVEN / path.name)
            GIVEN.mkdir(exist_ok=True)
            nbformat.write(notebook, written[-1])
    return written


def pages():
    """The notebooks of the site: chapters, the pages of book/ that run code, what labs give.

    In the end, the shortest, which are the first chapters: one core waits for the other less.
    """
    found = [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "book").glob("*.ipynb")]
    return write_given() + sorted(found, reverse=True)


def execute_apart(path, running):
    """Run one notebook in a process of its own, so that its peak memory can be told.

    The process leads a session: Ctrl-C, which a terminal sends to all of its own, is for the one
    process that can answer it.
    """
    command = [sys.executable, __file__, path]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, start_new_session=True, env=os.environ | ONE_THREAD
    )
    running.add(process)
    output, _ = process.communicate()
    running.discard(process)
    if process.returncode:
        return None, {"failure": f"its process ended with code {process.returncode}."}
    result = json.loads(output)
    return nbformat.from_dict(result.pop("notebook")), result


def main():
    """Bring the cache up to date; exit with 1 if a notebook failed."""
    cache = open_cache()
    notebooks = pages()
    stale = [path for path in notebooks if not is_cached(cache, path)]
    if not stale:
        print(f"All {len(notebooks)} notebooks are up to date.")
        return
    forget_pages()
    workers = min(len(stale), os.cpu_count() or 1, 4)
    count = f"{len(stale)} of {len(notebooks)} notebooks"
    print(f"Executing {count}, {workers} at a time ...", flush=True)
    log = BUILD / "execution.json"
    figures = json.loads(log.read_text()) if log.is_file() else {}
    failed, running = [], set()
    pool = ThreadPoolExecutor(workers)
    try:
        futures = {pool.submit(execute_apart, path, running): path for path in stale}
        for future in as_completed(futures):
            name = str(futures[future].relative_to(ROOT))
            notebook, result = future.result()
            if failure := result.pop("failure"):
                failed.append(name)
                print(f"\n{name}: {failure}\n", file=sys.stderr, flush=True)
                continue
            bundle = CacheBundleIn(notebook, str(futures[future]))
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
            figures[name] = result
            log.write_text(json.dumps(figures, indent=1, sort_keys=True))
            print(
                f"  {name}: {result['seconds']:.0f} s, {result['processor']:.0f} s of the "
                f"processor, {result['megabytes']:,} MB at most",
                flush=True,
            )
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(running):  # their kernels end with them
            process.kill()
        sys.exit("Interrupted. What had been executed is kept.")
    if failed:
        sys.exit(f"{len(failed)} of {len(stale)} notebooks failed: {', '.join(sorted(failed))}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(execute(Path(sys.argv[1]))))
    else:
        main()
