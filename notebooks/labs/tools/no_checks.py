"""What stands in for a lab's checks where students' notebooks run: the judge has the real ones.

A student's own cell may call them, and is told when they are made.
"""


def __getattr__(name):
    if name.startswith("_"):
        raise AttributeError(name)
    return _later


def _later(*_, **__):
    print("This check is made by the judge, when the notebook is graded.")
