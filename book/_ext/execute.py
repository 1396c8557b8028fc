"""Execute the notebooks that changed, in parallel, into the cache the site is built from.

A notebook is executed when its code changed, and all are when a file of the package, of the
data or the lock was touched, which the notebooks' own text cannot show. A notebook enters the
cache as soon as it is done, so an interrupted run loses only what was running.

On Linux each kernel is a fork of this process, which has imported the package and, with it,
TensorFlow: some five seconds that no notebook has to take again. It has computed nothing, since
threads are not forked. Elsewhere TensorFlow cannot be forked, and each kernel starts as ever.

What the explorables load, networks and pictures, is made beside the notebooks.
"""

# ruff: noqa: E402
import asyncio
import base64
import gc
import hashlib
import io
import json
import multiprocessing
import os
import re
import resource
import shutil
import sys
import time
from contextlib import closing, contextmanager, suppress
from functools import cache
from multiprocessing.connection import wait
from pathlib import Path

# jsonschema would make a parser of addresses with the first, which no notebook needs, and each
# kernel load a debugger, in which nobody steps here: over a second, and a tenth for each notebook.
sys.modules.setdefault("rfc3987_syntax", None)
sys.modules.setdefault("debugpy", None)

import course_utils
import nbformat
from ipykernel.kernelapp import IPKernelApp
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_client.provisioning import LocalProvisioner
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "_build"
CACHE = BUILD / ".jupyter_cache"
GIVEN = BUILD / "given"
TIMEOUT = 600  # seconds for one cell
# As many notebooks run as there are cores: with more, those that measure time would measure how
# long they wait for each other. Several threads each would wait, too (for small matrices most of
# the time: a chapter took three times as long), and round by their number.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
# Two pixels of a figure for one of the page.
FIGURES = ["--InlineBackend.figure_formats={'retina'}"]
# WebP of half a PNG's bytes. "exact" is about transparent pixels, of which there are none: without
# it the same bytes take a quarter longer.
LOSSLESS = {"lossless": True, "quality": 10, "method": 1, "exact": True}
ONE_THREAD = dict.fromkeys(_THREADS, "1")
FORKS = sys.platform == "linux"


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


class ForkedKernel(LocalProvisioner):
    """How nbclient gets a kernel that is a fork of this process."""

    async def launch_kernel(self, cmd, **kwargs):
        """Fork; the command is `python -m ipykernel_launcher` with the kernel's arguments."""
        fork = multiprocessing.get_context("fork").Process
        self.process = fork(target=be_kernel, args=(cmd[3:], kwargs["cwd"]))
        self.process.start()
        self.pid = self.pgid = self.process.pid
        return self.connection_info

    async def poll(self):
        """Return the exit code, or None while the kernel runs."""
        return self.process.exitcode if self.process else 0

    async def wait(self):
        """Wait until the kernel has ended."""
        while await self.poll() is None:
            await asyncio.sleep(0.05)
        self.process = None


def be_kernel(arguments, folder):
    """Serve as a kernel in that folder, and end when the process does that it comes from."""
    os.setsid()
    os.chdir(folder)
    sys.path[0] = ""
    asyncio.set_event_loop(asyncio.new_event_loop())  # not the client's, which runs in its process
    app = IPKernelApp.instance()
    app.initialize([*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])
    draw_once(app.shell)
    app.start()


def draw_once(shell):
    """Let a kernel draw a figure once to show it, where IPython has it drawn twice."""
    from matplotlib import pyplot
    from matplotlib.figure import Figure

    pyplot.switch_backend(os.environ["MPLBACKEND"])  # which the first figure would do
    # After a cell, what is open is shown and closed, and then drawn: in this order, which turning
    # interaction off and on gives, nothing is left to be drawn.
    pyplot.ioff()
    pyplot.ion()
    shell.display_formatter.formatters["image/png"].for_type(Figure, as_webp)


def as_webp(figure):
    """The pixels that IPython would show of a figure, as the WebP that the page will have.

    It goes by the name of a PNG, because MyST-NB knows no WebP; `pictures` looks what it is.

    To find the tight box, Matplotlib would draw everything an extra time with nothing to be seen.
    The box that it would find is given to it: it takes the layout alone.
    """
    from matplotlib import rcParams

    if not (figure.axes or figure.lines):
        return None  # as IPython has it: nothing is shown of a figure with nothing in it
    engine, dpi, webp = figure.get_layout_engine(), figure.dpi, io.BytesIO()
    figure.dpi = 2 * dpi  # as FIGURES has it drawn elsewhere
    if engine:
        engine.execute(figure)
    box = figure.get_tightbbox().padded(rcParams["savefig.pad_inches"])
    figure.set_layout_engine(None)
    figure.dpi = dpi
    options = {"dpi": 2 * dpi, "bbox_inches": box, "pil_kwargs": LOSSLESS}
    figure.savefig(webp, format="webp", **options)
    figure.set_layout_engine(engine)
    return base64.b64encode(webp.getvalue()).decode()


def execute(path, results):
    """Run one notebook; send it with its outputs, failure, peak megabytes and seconds.

    Seconds are those of the clock and, which other work lengthens less, of the processor. The
    process leads a session: Ctrl-C, which a terminal sends to all of its own, is for the one
    process that can answer it.
    """
    os.setsid()
    log_to(path.stem)  # what the kernel writes past the notebook
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
    if FORKS:
        manager = client.create_kernel_manager()
        manager.provisioner = ForkedKernel(parent=manager, kernel_spec=manager.kernel_spec)
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        failure = describe(notebook, started[-1], error)
    kernel = resource.getrusage(resource.RUSAGE_CHILDREN)
    results.send(
        {
            "notebook": notebook,
            "seconds": round(time.monotonic() - begun, 1),
            "processor": round(kernel.ru_utime + kernel.ru_stime, 1),
            "megabytes": round(kernel.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)),
            "failure": failure,
        }
    )


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


@cache
def processes():
    """Where processes come from: forks of this one, which has then imported the package."""
    os.environ |= ONE_THREAD
    if FORKS:
        # As a kernel would, before Matplotlib is imported.
        os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
        for name in course_utils.__all__:
            getattr(course_utils, name)
        gc.freeze()  # what is imported stays: no kernel has to look through it for garbage
    return multiprocessing.get_context("fork" if FORKS else "spawn")


@contextmanager
def explorables_beside():
    """Make what the explorables load meanwhile.

    Where that fails, Sphinx makes it, and says why it cannot.
    """
    process = processes().Process(target=make_explorables, daemon=True)
    process.start()
    yield
    process.join()


def make_explorables():
    """Bring the networks and pictures of the explorables up to date.

    On Linux it does so in what the notebooks leave of the processor: where threads wait for each
    other, and in the end, when the last ones run.
    """
    log_to("explorables")
    if FORKS:
        os.setsid()  # Linux shares a processor between sessions, then within each
        os.nice(19)
        with suppress(OSError):  # where it does not, there is no such file
            Path("/proc/self/autogroup").write_text("19")
    sys.path.insert(0, str(ROOT / "book/explorables"))
    import bundle

    bundle.exported()


def log_to(name):
    """Let this process write into a file of _build/logs."""
    log = BUILD / "logs" / f"{name}.txt"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def execute_all(paths, workers):
    """Run notebooks, so many at a time, each in a process of its own; yield each when it is done.

    With its path comes what execute() found, or how its process ended.
    """
    context = processes()
    waiting, running = list(paths), {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                path, (found, results) = waiting.pop(0), context.Pipe(duplex=False)
                process = context.Process(target=execute, args=(path, results))
                process.start()
                results.close()
                running[found] = path, process
            for found in wait(running):
                path, process = running.pop(found)
                try:
                    result = found.recv()
                except EOFError:
                    process.join()
                    ended = f"its process ended with code {process.exitcode}: see _build/logs."
                    result = {"failure": ended}
                yield path, result
    finally:
        for _, process in running.values():  # their kernels end with them
            process.kill()


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
    failed = []
    try:
        with explorables_beside(), closing(execute_all(stale, workers)) as executed:
            for path, result in executed:
                name = str(path.relative_to(ROOT))
                if failure := result.pop("failure"):
                    failed.append(name)
                    print(f"\n{name}: {failure}\n", file=sys.stderr, flush=True)
                    continue
                bundle = CacheBundleIn(result.pop("notebook"), str(path))
                cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
                figures[name] = result
                log.write_text(json.dumps(figures, indent=1, sort_keys=True))
                print(
                    f"  {name}: {result['seconds']:.0f} s, {result['processor']:.0f} s of the "
                    f"processor, {result['megabytes']:,} MB at most",
                    flush=True,
                )
    except KeyboardInterrupt:
        sys.exit("Interrupted. What had been executed is kept.")
    if failed:
        sys.exit(f"{len(failed)} of {len(stale)} notebooks failed: {', '.join(sorted(failed))}")


if __name__ == "__main__":
    main()
