"""Execute a student's notebook where it can do no harm: no network, no files, little memory.

    python notebooks/labs/tools/sandbox.py notebook.ipynb seconds_per_cell seconds gigabytes

The kernel runs in a bubblewrap sandbox (cage.py) that sees Python, the course's package and its
data, and nothing else: not the solutions, not the checks, not other students' work. The tests are
run by another process, the judge, which asks the kernel for what it needs (court.py, judge.py,
wire.py). The kernel can write to a small file system in
memory only, which ends with it; what it puts out is cut in there (kernel.py). A cell that crashes
the kernel, runs for too long or takes too much memory gets an error for its output; then a new
kernel replays the cells before it, and goes on with the next. Cells that never came to run get an
error too, because nbgrader would give full points to a test without one.
The notebook is rewritten in place, each cell with its outputs.
"""

# ruff: noqa: E402
import asyncio
import copy
import os
import resource
import socket
import sys
import tempfile
import time
from pathlib import Path
from queue import Empty
from subprocess import DEVNULL

# jsonschema would make a parser of addresses with it, which no notebook needs: over a second in
# each of these processes.
sys.modules.setdefault("rfc3987_syntax", None)

import nbformat
import psutil
import zmq.asyncio
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.client import CellExecutionComplete
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat.v4 import new_output, output_from_msg

import court
import judge
import kernel
from cage import GIGABYTE, cage, needed

OUTPUT = 200_000  # characters that a cell may print
PICTURES = 8_000_000  # characters of a cell's pictures, besides
TOTAL = 20_000_000  # characters of all cells' outputs
FILE = 4096  # bytes, at least, that a file takes from that and from the memory
PROCESSES = 300  # processes and threads at once
OURS = 3 * GIGABYTE  # of addresses, for this side; a flood of messages ends it, not the machine
BUSY = 10  # times its seconds that a cell may take if it mostly waits for the processor
PATIENCE = 30  # seconds for a kernel to say that it is still there
SOCKETS, KERNEL = "/run/kernel", "/run/kernel.py"
STARTUP = 120  # seconds that a kernel may take to answer
TOO_LATE = "It was not run: the whole notebook had used up its time."
SERVE = "__import__('wire').here(__import__('IPython').get_ipython().user_ns)"
KEPT = ("stream", "display_data")  # of what a student's functions put out when a test calls them


class CagedKernel(AsyncKernelManager):
    """A kernel in the sandbox, which talks through sockets in there instead of a network."""

    def __init__(self, *args, folder, memory, **kwargs):
        self.folder, self.held = Path(folder), []
        context = zmq.asyncio.Context()
        context.setsockopt(zmq.MAXMSGSIZE, 2 * kernel.MESSAGE)
        connection = {"transport": "ipc", "connection_file": str(self.folder / "kernel.json")}
        super().__init__(*args, ip=SOCKETS, context=context, **connection, **kwargs)
        self.meeting, self.students_end = socket.socketpair()  # where it and the judge meet
        self.cage = cage(folder, memory)

    def client(self, **kwargs):
        """A client that takes no message longer than the context lets through."""
        return super().client(context=self.context, **kwargs)

    def format_kernel_cmd(self, extra_arguments=None):
        """The kernel's command, behind that of the sandbox."""
        meets = ["env", f"JUDGE={self.students_end.fileno()}"]
        return [*self.cage, *meets, sys.executable, KERNEL, "-f", self.connection_file]

    async def connect(self, seconds):
        """Hold on to the sockets in the sandbox, seen from here, before a student's code runs."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for process in psutil.Process(self.provisioner.pid).children(recursive=True):
                root = Path(f"/proc/{process.pid}/root")
                sockets = [f"{root}{SOCKETS}-{port}" for port in self.ports]
                if all(map(os.path.exists, sockets)):
                    self.ip, self.root = str(self.folder / "socket"), root
                    for port, path in zip(self.ports, sockets, strict=True):
                        self.held.append(os.open(path, os.O_PATH | os.O_NOFOLLOW))
                        os.symlink(f"/proc/self/fd/{self.held[-1]}", f"{self.ip}-{port}")
                    return
            await asyncio.sleep(0.1)
        raise RuntimeError(f"no kernel answered in {seconds} seconds")

    def written(self):
        """How much memory what was written to files takes, in bytes."""
        taken = 0
        for path in ("tmp", "dev/shm", "run"):
            try:
                disk = os.statvfs(self.root / path)
            except OSError:  # it has ended
                continue
            taken += (disk.f_blocks - disk.f_bfree) * disk.f_frsize
            taken += (disk.f_files - disk.f_ffree) * FILE
        return taken


class Client(NotebookClient):
    """A client that keeps what tells of a cell, and no more of it than a page can show."""

    printed = pictures = 0

    def process_message(self, msg, cell, cell_index):
        """Store outputs; widgets, and whatever else could change or hide one, are not heeded."""
        kind, content = msg["msg_type"], msg["content"]
        if kind == "status" and content["execution_state"] == "idle":
            raise CellExecutionComplete
        if kind == "execute_input":
            cell.execution_count = int(content["execution_count"])
        elif kind == "clear_output":
            cell.outputs = [output for output in cell.outputs if output.output_type == "error"]
        elif kind == "error" and not any(o.output_type == "error" for o in cell.outputs):
            cell.outputs.append(
                output_from_msg({**msg, "content": kernel.cut(content, kernel.LINE)})
            )
        elif kind in ("stream", "display_data", "execute_result"):
            data = content.get("data", {})
            pictures = sum(len(data[kind]) for kind in kernel.PICTURES if kind in data)
            self.pictures += pictures
            self.printed += len(str(content)) - pictures
            if self.printed <= OUTPUT and self.pictures <= PICTURES:
                cell.outputs.append(output_from_msg(msg))
            elif kind == "execute_result":  # it may be the points of a test
                text = kernel.cut(str(data.get("text/plain", "")), kernel.LINE)
                cell.outputs.append(new_output(kind, {"text/plain": text}))

    def lost_error(self, cell, cell_index, execute_reply):
        """Put an error among a cell's outputs, if it had one that did not get there."""
        reply = kernel.cut(execute_reply["content"], kernel.LINE)
        if reply["status"] == "error" and all(o.output_type != "error" for o in cell.outputs):
            told = {key: str(reply.get(key, "")) for key in ("ename", "evalue")}
            cell.outputs.append(new_output("error", **told, traceback=[told["evalue"]]))


class Run:
    """One notebook's execution, through as many kernels as it wears out."""

    def __init__(self, notebook, cell_seconds, seconds, gigabytes):
        self.notebook, self.gigabytes = notebook, gigabytes
        self.cell_seconds, self.deadline = cell_seconds, time.monotonic() + seconds
        self.spoilt, self.excess = set(), None
        self.kernel_number = self.put_out = 0

    async def execute(self):
        """Fill in the outputs of every cell."""
        client = None
        cells = self.notebook.cells
        self.judge = court.Judge(self.folder, self.gigabytes, court.rooms_of(self.notebook))
        self.judge.start()
        for index, cell in enumerate(cells):
            if cell.cell_type != "code":
                continue
            cell.outputs, cell.execution_count = [], None
            trouble = None
            if time.monotonic() > self.deadline:
                trouble = TOO_LATE
            elif client is None:
                client, trouble = await self.new_kernel(index)
            run = self.judged if court.is_test(cell) else self.attempt
            trouble = trouble or await run(client, cell, index)
            if trouble:
                stop(cell, trouble)
                self.spoilt.add(index)
                await self.end(client)
                client = None
            elif court.is_test(cell):
                cell.outputs = court.for_nbgrader(cell)
        await self.end(client)
        self.judge.stop()

    async def new_kernel(self, index):
        """A client whose kernel has run the cells before `index`, or what went wrong."""
        while True:
            client = await self.start()
            for earlier, cell in enumerate(self.notebook.cells[:index]):
                if cell.cell_type != "code" or court.is_test(cell) or earlier in self.spoilt:
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
        manager = CagedKernel(folder=folder, memory=self.gigabytes, kernel_name="python3")
        # A client writes the cells it executes into its notebook; ours keeps its own.
        client = Client(copy.deepcopy(self.notebook), km=manager, startup_timeout=STARTUP)
        client.on_cell_executed = client.lost_error
        client.record_timing, client.raise_on_iopub_timeout = False, True
        end = manager.students_end
        await client.async_start_new_kernel(stdout=DEVNULL, stderr=DEVNULL, pass_fds=[end.fileno()])
        end.close()
        await manager.connect(STARTUP)
        await client.async_start_new_kernel_client()
        return client

    async def attempt(self, client, cell, index):
        """Run one cell; returns None, or what the cell did to its kernel."""
        full = self.put_out > TOTAL
        client.printed, client.pictures = full * OUTPUT, full * PICTURES
        self.excess, self.waited = None, 0.0
        limit = int(min(self.cell_seconds, max(self.deadline - time.monotonic(), 1)))
        client.timeout = BUSY * limit
        client.allow_errors = True
        watch = asyncio.create_task(self.watch(client.km, limit))
        try:
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
            self.put_out += min(client.printed, OUTPUT) + min(client.pictures, PICTURES)
            self.deadline += self.waited
        return self.excess

    async def judged(self, client, test, index):
        """Have the judge run a test, with what the student's process has; returns as `attempt`."""
        meeting = client.km.meeting
        try:
            await self.judge.ready(STARTUP)
        except (OSError, ValueError):
            self.judge.stop()
            return "The test could not be judged."
        asked = asyncio.create_task(
            self.judge.ask(test.source, judge.own_cells(self.notebook), meeting)
        )
        serving = nbformat.v4.new_code_cell(SERVE)
        trouble = await self.attempt(client, serving, index)
        if any(output.output_type == "error" for output in serving.outputs):
            meeting.shutdown(socket.SHUT_RDWR)  # the judge need not wait for it
        test.execution_count = serving.execution_count
        test.outputs = [output for output in serving.outputs if output.output_type in KEPT]
        try:
            told = await asyncio.wait_for(asked, PATIENCE)
        except (OSError, ValueError):  # a time-out is an OSError
            self.judge.stop()
            return trouble or "The test could not be judged."
        if told["gone"]:  # there may be more on the wire that makes no sense
            return trouble or "What the student's process told the judge could not be read."
        test.outputs += court.outputs_of(told)
        return trouble

    async def watch(self, manager, limit):
        """End a kernel whose processes and files are too large or too many, or take too long.

        A cell has `limit` seconds, and those are not counted in which it waited for a processor:
        where other programs take most of it, an innocent cell is not stopped for that.
        """
        begun, before = time.monotonic(), []
        while True:
            await asyncio.sleep(0.3)
            processes, judges = self.students(), self.judge.processes()
            sizes, threads = sizes_of(processes)
            memory = manager.written() + sum(sizes.values())
            # Of each of the two the largest process, for which all others are small.
            now = [delays(max(s, key=s.get)) for s in (sizes, sizes_of(judges)[0])]
            before = before or now
            waits = [[n[t] - b.get(t, 0) for t in n] for n, b in zip(now, before, strict=True)]
            self.waited = max(self.waited, sum(max(wait, default=0) for wait in waits))
            if memory > self.gigabytes * GIGABYTE:
                self.excess = f"The cell was stopped: it took over {self.gigabytes:g} GB of memory."
            elif threads > PROCESSES:
                self.excess = f"The cell was stopped: it had started over {PROCESSES} processes."
            elif time.monotonic() - begun - self.waited > limit:
                self.excess = f"The cell was stopped: it had run for {limit} seconds."
            if self.excess:
                kill(processes)
                return

    def students(self):
        """The processes of the student's kernel."""
        judges = self.judge.processes()
        return [p for p in psutil.Process().children(recursive=True) if p not in judges]

    async def end(self, client):
        """Kill what is left of a kernel."""
        if client is None:
            return
        kill(self.students())
        client.km.meeting.close()
        await client.km.shutdown_kernel(now=True)
        client.kc.stop_channels()
        for held in client.km.held:
            os.close(held)

    def to_the_end(self):
        """Execute the notebook, with a folder for its kernels' sockets."""
        with tempfile.TemporaryDirectory(prefix="lab") as self.folder:
            asyncio.run(self.execute())


def sizes_of(processes):
    """The memory of each process, {its number: bytes}, and how many threads they have."""
    sizes, threads = {0: 0}, 0
    for process in processes:
        try:
            sizes[process.pid] = process.memory_info().rss
            threads += process.num_threads()
        except psutil.Error:
            continue
    return sizes, threads


def delays(process):
    """How many seconds each thread of a process has waited for a processor, as Linux counts it."""
    found = {}
    for path in Path(f"/proc/{process}/task").glob("*/schedstat"):
        try:
            found[path.parent.name] = int(path.read_text().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):  # it has ended
            continue
    return found


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


def stop(cell, sentence):
    """Mark a cell that did not come to its end, where no student can, and give it an error."""
    cell.metadata["stopped"] = sentence
    cell.outputs.append(court.error(sentence))


def stops(notebook):
    """What was the matter with cells that did not come to their end, each sentence once."""
    found = [cell.metadata.get("stopped") for cell in notebook.cells]
    return list(dict.fromkeys(filter(None, found)))


def main(path, cell_seconds, seconds, gigabytes):
    """Execute the notebook at `path`, within limits for each cell, for all, and for memory."""
    needed()
    resource.setrlimit(resource.RLIMIT_AS, (OURS, resource.getrlimit(resource.RLIMIT_AS)[1]))
    path = Path(path)
    notebook = nbformat.read(path, 4)
    Run(notebook, float(cell_seconds), float(seconds), float(gigabytes)).to_the_end()
    nbformat.write(notebook, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
