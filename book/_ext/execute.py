"""Execute the notebooks that changed, in parallel, into the cache the site is built from.

A notebook is executed when its code changed, and all are when a file of the package, of the
data or the lock was touched, which the notebooks' own text cannot show. A notebook enters the
cache as soon as it is done, so an interrupted run loses only what was running.
"""

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import active_children, get_context
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "_build"
CACHE = BUILD / ".jupyter_cache"
TIMEOUT = 600  # seconds for one cell


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
    """Run one notebook; return it with its outputs, seconds, peak megabytes and any failure."""
    notebook = nbformat.read(path, 4)
    begun, started, failure = time.monotonic(), [], None
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": path.parent}},
        coalesce_streams=True,  # of a progress bar, keep what a terminal shows in the end
        record_timing=False,  # times in a cell's metadata would hide it from the cache
        on_cell_execute=lambda cell, cell_index: started.append(cell_index),
    )
    log = BUILD / "logs" / f"{path.stem}.txt"
    log.parent.mkdir(exist_ok=True)
    try:
        with log.open("w") as kernel_log:
            client.execute(stderr=kernel_log)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        failure = describe(notebook, started[-1], error)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    megabytes = peak / (2**20 if sys.platform == "darwin" else 2**10)
    return notebook, time.monotonic() - begun, megabytes, failure


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


def pages():
    """The notebooks of the site: the chapters, and the pages of book/ that run code."""
    return sorted([*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "book").glob("*.ipynb")])


def ignore_ctrl_c():
    """Leave Ctrl-C, which a terminal sends to every process, to the one that can answer it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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
    print(
        f"Executing {len(stale)} of {len(notebooks)} notebooks, {workers} at a time ...", flush=True
    )
    log = BUILD / "execution.json"
    figures = json.loads(log.read_text()) if log.is_file() else {}
    failed = []
    # One process a notebook: then the peak memory of its children is that of one kernel.
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=ignore_ctrl_c, max_tasks_per_child=1
    )
    try:
        futures = {pool.submit(execute, path): path for path in stale}
        for future in as_completed(futures):
            name = str(futures[future].relative_to(ROOT))
            notebook, seconds, megabytes, failure = future.result()
            if failure:
                failed.append(name)
                print(f"\n{name}: {failure}\n", file=sys.stderr, flush=True)
                continue
            bundle = CacheBundleIn(
                notebook, str(futures[future]), data={"execution_seconds": seconds}
            )
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
            figures[name] = {"seconds": round(seconds, 1), "megabytes": round(megabytes)}
            log.write_text(json.dumps(figures, indent=1, sort_keys=True))
            print(f"  {name}: {seconds:.0f} s, {megabytes:,.0f} MB at most", flush=True)
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in active_children():  # their kernels end with them
            worker.terminate()
        sys.exit("Interrupted. What had been executed is kept.")
    if failed:
        sys.exit(f"{len(failed)} of {len(stale)} notebooks failed: {', '.join(sorted(failed))}")


if __name__ == "__main__":
    main()
