"""Where a task above is still open, a cell that needs it says so in a sentence."""

import ast
import re
import sys
import traceback

STILL_OPEN = "Still open"
"""What the name of the error becomes, and how the sentence begins."""


def watch():
    """In a notebook, have errors that come of an open task told as one; others stay as they are."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    if shell:
        shell.set_custom_exc((Exception,), tell)


def tell(shell, kind, error, trace, tb_offset=None):
    """Show an error as IPython does, or the sentence on the open task that it comes of."""
    sentence = needs(error, trace, shell.user_ns)
    if not sentence:
        return shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
    return shell._showtraceback(type(STILL_OPEN, (), {}), sentence, [f"{STILL_OPEN}: {sentence}"])


def needs(error, trace, names):
    """A sentence on what a cell needs that a task above has not made yet, or None.

    `names` are those of the notebook, with IPython's list `In` of the cells that were run.
    """
    *earlier, cell = names.get("In", [""])
    frame = [frame for frame, _ in traceback.walk_tb(trace)][-1]
    stub = names.get(frame.f_code.co_name)
    if isinstance(error, NotImplementedError) and getattr(stub, "__code__", None) is frame.f_code:
        return f"this cell needs {frame.f_code.co_name}, which has no code yet."
    if isinstance(error, NameError) and any(error.name in made(one) for one in earlier):
        return f"this cell needs {error.name}, which a cell above makes once it runs to its end."
    if isinstance(error, NotImplementedError) and frame.f_code.co_name == "<module>":
        return "this cell waits for your answer in place of what raises the error."
    empty = [name for name in used(cell) if names.get(name, 0) is Ellipsis]
    if empty and not hasattr(error, "_render_traceback_"):  # a check has a sentence of its own
        one = len(empty) == 1
        return (
            f"this cell needs {' and '.join(empty)}, which {'has' if one else 'have'} no value yet."
        )
    return None


def used(source):
    """The names that a cell reads, in their order."""
    return list(dict.fromkeys(name.id for name in _names(source, ast.Load)))


def made(source):
    """The names that a cell would make."""
    return {name.id for name in _names(source, ast.Store)}


def _names(source, context):
    try:
        tree = ast.parse(re.sub(r"(?m)^([ \t]*)[%!].*$", r"\1pass", source))
    except SyntaxError:
        return []
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    found = [node for node in found if isinstance(node.ctx, context)]
    return sorted(found, key=lambda node: (node.lineno, node.col_offset))
