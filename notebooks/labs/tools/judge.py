"""The judge: runs a lab's tests where no student's code runs.

sandbox.py starts one beside a student's kernel, in a cage of its own. It gets the tests one by one,
with a socket to the kernel, from which it takes the values of the student's names and through which
it calls the student's functions (wire.py). So what is right, the keys and the hidden tests are in
no frame, module or file that a student's code can reach; and what came out goes to sandbox.py, and
not by way of the student's process.
"""

import ast
import builtins
import contextlib
import functools
import importlib
import io
import json
import linecache
import socket
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import wire

LONGEST = 2**20  # bytes of a message between here and sandbox.py
PRINTED = 20_000  # characters that a test may print


def own_cells(notebook):
    """The lab's own code that gives its tests their names, and no student's: a list of sources."""
    return [
        cell.source
        for cell in notebook.cells
        if cell.cell_type == "code"
        and (mark := cell.metadata.get("nbgrader"))
        and not (mark.get("solution") or mark.get("grade"))
    ]


def made(source):
    """The names that code defines or imports at its top level; none of code with %magics."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return set()
    names = set()
    for statement in body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            names |= {(a.asname or a.name).partition(".")[0] for a in statement.names}
        elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names.add(statement.name)
        else:
            stored = (n for n in ast.walk(statement) if isinstance(n, ast.Name))
            names |= {n.id for n in stored if isinstance(n.ctx, ast.Store)}
    return names


def judge(source, own, peer):
    """Run a test; returns what it printed, its error if any, and the value it ends with.

    Names that `own`, the lab's code, defines come from there, the others from the student.
    """
    defined = {name: source for source in reversed(own) for name in made(source)}
    tree = ast.parse(source)
    names = {"__name__": "__main__"}
    told = {"printed": "", "error": None, "value": None, "gone": False}
    printed = io.StringIO()
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    linecache.cache["<test>"] = len(source), None, source.splitlines(keepends=True), "<test>"
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            for name in sorted(used(tree) | used(last)):
                if name in defined:
                    names[name] = known(defined[name])[name]
                else:
                    with contextlib.suppress(KeyError):  # not defined, as the test will say
                        names[name] = peer.ask("get", name)
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            exec(compile(tree, "<test>", "exec"), names)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), "<test>", "eval"), names)
                told["value"] = None if value is None else repr(value)[:200]
    except Exception as error:
        told["error"] = [type(error).__name__, str(error)[: wire.TEXT], as_told(error)]
    told["gone"] = peer.lost
    told["printed"] = printed.getvalue()[:PRINTED]
    return told


@functools.cache
def known(source):
    """The names that a cell of the lab's own code defines."""
    names = {"__name__": "__main__"}
    exec(compile(source, "<lab>", "exec"), names)
    return names


def used(tree):
    """The names that code reads and does not define itself."""
    if tree is None:
        return set()
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return {n.id for n in names if isinstance(n.ctx, ast.Load)} - set(dir(builtins))


def as_told(error):
    """The lines that a notebook shows of an error: its sentence, or where the test stopped."""
    if hasattr(error, "_render_traceback_"):
        return error._render_traceback_()
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"  {f.line}" for f in frames if f.filename == "<test>" and f.line]
    return [*where[-1:], "".join(traceback.format_exception_only(error)).strip()[: wire.TEXT]]


def main(control, *rooms):
    """Judge what comes over the socket `control`, each test with a socket to the student."""
    control = socket.socket(fileno=int(control))
    for room in rooms:  # seconds that are no test's
        with contextlib.suppress(ImportError):  # the test will say so
            importlib.import_module(f"course_utils.labs.{room}.checks")
    control.sendall(b"ready")
    while True:
        message, sockets, *_ = socket.recv_fds(control, LONGEST, 1)
        if not message:
            return
        test = json.loads(message)
        peer = wire.Peer(socket.socket(fileno=sockets[0]))
        told = judge(test["source"], test["own"], peer)
        with contextlib.suppress(OSError):
            peer.send("end")
        peer.socket.close()
        control.sendall(json.dumps(told, ensure_ascii=False).encode("utf-8", "replace"))


if __name__ == "__main__":
    main(*sys.argv[1:])
