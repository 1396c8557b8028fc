"""TensorFlow's log lines do not belong into a reader's notebook."""

import os
import sys
from contextlib import contextmanager


@contextmanager
def quiet():
    """In a notebook, keep what TensorFlow logs while it is first loaded out of the cell's output.

    It writes past Python, to the process's standard error, and about graphics cards that the
    machine does not have; errors are raised as ever.
    """
    if "ipykernel" not in sys.modules or "tensorflow" in sys.modules:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
