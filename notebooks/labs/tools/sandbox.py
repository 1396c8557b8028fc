"""Execute a student's notebook where it can do no harm: no network, no files, little memory.

    python notebooks/labs/tools/sandbox.py notebook.ipynb seconds_per_cell seconds gigabytes

The kernel runs in a bubblewrap sandbox that sees Python, the course's package and its data, an
empty folder, and nothing else: not the solutions, not other students' work. A cell that crashes
the kernel, runs for too long or takes too much memory gets an error for its output; then a new
kernel replays the cells before it, and goes on with the next. Cells that never came to run get an
error too, because nbgrader would give full points to a test without one.
The notebook is rewritten in place, each cell with its outputs.
"""

import asyncio
import copy
import os
import shutil
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from queue import Empty
from subprocess import DEVNULL

import matplotlib
import nbformat
import psutil
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat.v4 import new_output

GIGABYTE = 2**30
OUTPUT = 200_000  # characters that a cell may print
PROCESSES = 300  # processes and threads at once
HOME = str(Path("/tmp") / "student")
IDLE = 3  # times its seconds that a cell may take without using the processor, on a busy machine
PATIENCE = 30  # seconds for a kernel to say that it is still there
TOO_LATE = "It was not run: the whole notebook had used up its time."
# The student's code may have changed what the checks do: tests get them anew.
FRESH_CHECKS = """
import importlib, sys
for _name in [name for name in sys.modules if name.startswith("course_utils.labs")]:
    if _name.rpartition(".")[2] in ("checks", "_engine"):
        del sys.modules[_name]
checks = importlib.import_module("course_utils.labs.checks")
"""


def needed():
    """Raise RuntimeError, with what to do, where there is no way to shut a notebook in."""
    missing = [program for program in ("bwrap", "prlimit") if not shutil.which(program)]
    if missing:
        raise RuntimeError(
            f"{' and '.join(missing)} not found. Students' notebooks run in a sandbox or not at "
            "all: install bubblewrap and util-linux (Debian, Ubuntu: apt-get install bubblewrap), "
            "or on macOS and Windows grade inside Linux (a container, WSL)."
        )


def cage(folder, memory):
    """The command that runs another in the sandbox; `folder` is all it shares with the outside."""
    package = Path(find_spec("course_utils").origin).parent  # not imported: TensorFlow is slow
    data = next(f for f in (package / "data", package.parent / "data") if f.is_dir())
    visible = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives"]
    visible += ["/etc/fonts", "/etc/localtime", "/etc/ssl/openssl.cnf"]
    visible += [sys.base_prefix, sys.prefix, package, data]
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    command += ["--proc", "/proc", "--dev", "/dev"]
    for path in ("/dev/shm", "/tmp"):
        command += ["--size", str(GIGABYTE // 2), "--tmpfs", path]
    for path in visible:
        command += ["--ro-bind-try", str(path), str(path)]
    build = str(data / "build")  # the scripts that planted the labs' defects
    command += ["--tmpfs", build, "--remount-ro", build]
    command += ["--remount-ro", "/dev", "--dir", HOME, "--chdir", HOME]
    command += ["--bind", str(folder), str(folder), "--clearenv"]
    environment = {"HOME": HOME, "LANG": "C.UTF-8", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment |= {"PATH": os.environ["PATH"], "CUDA_VISIBLE_DEVICES": "-1"}
    environment |= {"MPLCONFIGDIR": f"{folder}/matplotlib", "IPYTHONDIR": f"{HOME}/.ipython"}
    for name, value in environment.items():
        command += ["--setenv", name, value]
    return [*command, "prlimit", f"--as={int(memory * GIGABYTE)}", "--core=0", "--"]


class CagedKernel(AsyncKernelManager):
    """A kernel in the sandbox, which talks through files in a folder instead of a network."""

    def __init__(self, *args, folder, memory, **kwargs):
        connection = str(Path(folder) / "kernel.json")
        super().__init__(*args, transport="ipc", connection_file=connection, **kwargs)
        self.cage = cage(folder, memory)

    def format_kernel_cmd(self, extra_arguments=None):
        """The kernel's own command, behind that of the sandbox."""
        return [*self.cage, *super().format_kernel_cmd(extra_arguments)]


class Client(NotebookClient):
    """A client that keeps the first part of what a cell prints, so that no cell can fill it up."""

    printed = 0

    def output(self, outs, msg, display_id, cell_index):
        """Store an output, unless the cell has put out too much already; errors always count."""
        if msg["msg_type"] != "error":
            self.printed += len(str(msg["content"]))
            if self.printed > OUTPUT:
                return None
        return super().output(outs, msg, display_id, cell_index)


class Run:
    """One notebook's execution, through as many kernels as it wears out."""

    def __init__(self, notebook, cell_seconds, seconds, gigabytes):
        self.notebook, self.gigabytes = notebook, gigabytes
        self.cell_seconds, self.deadline = cell_seconds, time.monotonic() + seconds
        self.spoilt, self.excess = set(), None
        self.kernel_number = 0

    async def execute(self):
        """Fill in the outputs of every cell."""
        client = None
        cells = self.notebook.cells
        for index, cell in enumerate(cells):
            if cell.cell_type != "code":
                continue
            cell.outputs, cell.execution_count = [], None
            trouble = None
            if time.monotonic() > self.deadline:
                trouble = TOO_LATE
            elif client is None:
                client, trouble = await self.new_kernel(index)
            trouble = trouble or await self.attempt(client, cell, index)
            if trouble:
                cell.outputs.append(error(trouble))
                self.spoilt.add(index)
                await self.end(client)
                client = None
            elif cell.metadata.get("nbgrader", {}).get("grade"):
                cell.outputs = for_nbgrader(cell)
        await self.end(client)

    async def new_kernel(self, index):
        """A client whose kernel has run the cells before `index`, or what went wrong."""
        while True:
            client = await self.start()
            for earlier, cell in enumerate(self.notebook.cells[:index]):
                if cell.cell_type != "code" or earlier in self.spoilt:
                    continue
                if await self.attempt(client, copy.deepcopy(cell), earlier):
                    self.spoilt.add(earlier)  # it went well once, and does not any more
                    break
            else:
                return client, None
            await self.end(client)
            if time.monotonic() > self.deadline:
                return None, TOO_LATE

    async def start(self):
        """A client with a new kernel."""
        self.kernel_number += 1
        folder = Path(self.folder, str(self.kernel_number))
        folder.mkdir()
        fonts = matplotlib.get_cachedir()  # or every kernel would look through all fonts anew
        shutil.copytree(fonts, folder / "matplotlib")
        manager = CagedKernel(folder=folder, memory=self.gigabytes, kernel_name="python3")
        # A client writes the cells it executes into its notebook; ours keeps its own.
        client = Client(copy.deepcopy(self.notebook), km=manager, startup_timeout=120)
        await client.async_start_new_kernel(stdout=DEVNULL, stderr=DEVNULL)
        await client.async_start_new_kernel_client()
        return client

    async def attempt(self, client, cell, index):
        """Run one cell; returns None, or what the cell did to its kernel."""
        client.printed, self.excess = 0, None
        left = max(self.deadline - time.monotonic(), 1)
        client.timeout = int(min(IDLE * self.cell_seconds, left)) or 1
        client.allow_errors = True
        watch = asyncio.create_task(self.watch())
        try:
            if cell.metadata.get("nbgrader", {}).get("grade"):
                fresh = nbformat.v4.new_code_cell(FRESH_CHECKS)
                await client.async_execute_cell(fresh, index, store_history=False)
            await client.async_execute_cell(cell, index)
            if await leaves(client):
                raise DeadKernelError
        except CellTimeoutError:
            return f"The cell was stopped: it had run for {client.timeout} seconds."
        except DeadKernelError:
            return self.excess or "The cell ended the kernel, so that Python had to start anew."
        except Exception as problem:  # a message that no kernel sends of itself
            return f"The cell could not be run: {type(problem).__name__}."
        finally:
            watch.cancel()
        return self.excess

    async def watch(self):
        """End a kernel whose processes together are too large or too many, or take too long.

        A cell has its seconds on the clock and on the processor too: where other programs take
        most of that, an innocent cell is not stopped for it.
        """
        begun, before = time.monotonic(), None
        while True:
            await asyncio.sleep(0.3)
            processes = psutil.Process().children(recursive=True)
            memory = threads = used = 0
            for process in processes:
                try:
                    memory += process.memory_info().rss
                    threads += process.num_threads()
                    used += sum(process.cpu_times()[:2])
                except psutil.Error:
                    continue
            if memory > self.gigabytes * GIGABYTE:
                self.excess = f"The cell was stopped: it took over {self.gigabytes:g} GB of memory."
            elif threads > PROCESSES:
                self.excess = f"The cell was stopped: it had started over {PROCESSES} processes."
            before = used if before is None else before
            if min(time.monotonic() - begun, used - before) > self.cell_seconds:
                seconds = f"{self.cell_seconds:g} seconds"
                self.excess = f"The cell was stopped: it had run for {seconds}."
            if self.excess:
                kill(processes)
                return

    async def end(self, client):
        """Kill what is left of a kernel."""
        if client is None:
            return
        kill(psutil.Process().children(recursive=True))
        await client.km.shutdown_kernel(now=True)
        client.kc.stop_channels()

    def to_the_end(self):
        """Execute the notebook, with a folder for its kernels' sockets."""
        with tempfile.TemporaryDirectory(prefix="lab") as self.folder:
            asyncio.run(self.execute())


async def leaves(client):
    """Whether a kernel that has answered a cell is about to end, as after exit(), or has ended."""
    asked = {"leaves": "__import__('IPython').get_ipython().exit_now"}
    sent = client.kc.execute("", silent=True, store_history=False, user_expressions=asked)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            message = await client.kc.get_shell_msg(timeout=0.5)
        except Empty:
            if not await client.km.is_alive():
                return True
            continue
        if message["parent_header"].get("msg_id") == sent:
            told = message["content"].get("user_expressions", {}).get("leaves", {})
            return told.get("data", {}).get("text/plain") == "True"
    return True


def kill(processes):
    """End processes at once; those that have ended already are no matter."""
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            continue


def for_nbgrader(cell):
    """A test's outputs as nbgrader should read them.

    It gives no points where anything is written to stderr, which warnings are; and it takes a
    number that a test ends with for its points, all other results for full points.
    """
    outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    for output in outputs:
        if output.output_type == "execute_result":
            try:
                valid = 0 <= float(output.data["text/plain"]) <= cell.metadata.nbgrader.points
            except (KeyError, ValueError):
                valid = False
            if not valid:
                return [error("The test did not end with a number of points that it can give.")]
    return outputs


def error(sentence):
    """The output of a cell that did not come to its end."""
    return new_output("error", ename="Stopped", evalue=sentence, traceback=[sentence])


def main(path, cell_seconds, seconds, gigabytes):
    """Execute the notebook at `path`, within limits for each cell, for all, and for memory."""
    needed()
    path = Path(path)
    notebook = nbformat.read(path, 4)
    Run(notebook, float(cell_seconds), float(seconds), float(gigabytes)).to_the_end()
    nbformat.write(notebook, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
