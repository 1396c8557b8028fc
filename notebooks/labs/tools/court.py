"""Where tests are judged: the judge's process, and its verdict as nbgrader reads it."""

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
from subprocess import DEVNULL

import psutil
from nbformat.v4 import new_output

from cage import cage

JUDGE = "/run/judge.py"


class Judge:
    """The process that runs the tests (judge.py), in a cage; started anew where it has ended.

    `rooms` are the labs whose checks it loads before it says that it is ready.
    """

    def __init__(self, folder, memory, rooms=()):
        self.folder, self.memory, self.rooms = folder, memory, rooms
        self.process, self.answers = None, False

    def start(self):
        """Start it, unless it runs."""
        if self.process and self.process.poll() is None:
            return
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.setblocking(False)
        command = [*cage(self.folder, self.memory, judges=True), sys.executable, JUDGE]
        self.process = subprocess.Popen(
            [*command, str(theirs.fileno()), *self.rooms],
            pass_fds=[theirs.fileno()],
            **dict.fromkeys(("stdin", "stdout", "stderr"), DEVNULL),
        )
        theirs.close()
        self.answers = False

    async def ready(self, seconds):
        """Wait until it answers. Raises ValueError or OSError if it does not."""
        self.start()
        if not self.answers:
            if not await asyncio.wait_for(self.hear(), seconds):
                raise ValueError("the judge has ended")
            self.answers = True

    async def hear(self):
        """The next that it says."""
        return await asyncio.get_running_loop().sock_recv(self.control, 2**20)

    async def ask(self, test, own, meeting):
        """What became of a test, for which the judge meets the student's process at `meeting`.

        Raises ValueError or OSError where there is no judge any more; the student's process then
        waits no longer.
        """
        try:
            message = json.dumps({"source": test, "own": own}).encode()
            socket.send_fds(self.control, [message], [meeting.fileno()])
            return json.loads(await self.hear())
        except (OSError, ValueError):
            meeting.shutdown(socket.SHUT_RDWR)
            raise

    def processes(self):
        """Its processes, which are not the student's."""
        try:
            own = psutil.Process(self.process.pid)
            return [own, *own.children(recursive=True)]
        except (psutil.Error, AttributeError):
            return []

    def stop(self):
        """End it."""
        if self.process:
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()
            self.process.wait()
            self.control.close()
            self.process = None


def is_test(cell):
    """Whether a code cell is one that gives points."""
    return bool(cell.metadata.get("nbgrader", {}).get("grade"))


def rooms_of(notebook):
    """The labs whose checks the tests of a notebook use."""
    tests = [cell.source for cell in notebook.cells if cell.cell_type == "code" and is_test(cell)]
    return sorted(set(re.findall(r"\bchecks\.(\w+)\.", "\n".join(tests))))


def outputs_of(told):
    """What the judge tells of a test, as a cell's outputs."""
    made = [new_output("stream", name="stdout", text=told["printed"])] if told["printed"] else []
    if told["error"]:
        name, text, lines = told["error"]
        made.append(new_output("error", ename=name, evalue=text, traceback=lines))
    elif told["value"]:
        made.append(new_output("execute_result", {"text/plain": told["value"]}))
    return made


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
    """An output for what a cell was not let do."""
    return new_output("error", ename="Stopped", evalue=sentence, traceback=[sentence])
