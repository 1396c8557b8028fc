"""Checks that teach: each says what is wrong and where to look, and never the answer.

`checks.NAME` are those of the lab NAME. A check takes what the student made, tries it on images
of its own, prints a line when it is right, and raises `NotYet` with a sentence when it is not.
"""

from importlib import import_module as _import_module

from course_utils.labs import _open
from course_utils.labs._engine import NotYet as NotYet
from course_utils.labs._engine import credit as credit

_LABS = ("embeddings", "filters", "grad_cam", "gradients", "lime", "occlusion")

__all__ = ["NotYet", "credit", *_LABS]


_open.watch()


def __getattr__(name):
    if name in _LABS:
        return _import_module(f"course_utils.labs.{name}.checks")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_LABS])
