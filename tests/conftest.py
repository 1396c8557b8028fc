"""What all tests share: the same random weights in every run, and the run's own circumstances."""

import gc
import os
import random
import sys
from importlib import import_module

import pytest
from hypothesis import HealthCheck, settings

# jsonschema would make a parser of addresses with it, which no notebook needs: over a second.
sys.modules.setdefault("rfc3987_syntax", None)
# A machine that does other work is slow, which is no fault of what is tested.
settings.register_profile("course", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("course"), max_examples=25)


def pytest_addoption(parser):
    group = parser.getgroup("anywhere", "other circumstances (make test-anywhere)")
    group.addoption("--shuffle", type=int, metavar="SEED", help="run the tests in a random order")
    group.addoption("--batch", type=int, metavar="N", help="the batch size where none is given")


def pytest_configure(config):
    """A quarter of the examples where the slow tests are left out, too (make test)."""
    settings.load_profile("quick" if config.option.markexpr == "not slow" else "course")


def pytest_collection_modifyitems(config, items):
    """Files in a random order, and within each of them its tests."""
    seed = config.getoption("--shuffle")
    if seed is not None:
        place = {path: random.Random(f"{seed}{path}").random() for path in {i.path for i in items}}
        items.sort(key=lambda i: (place[i.path], random.Random(f"{seed}{i.nodeid}").random()))


def pytest_collection_finish():
    """Tests that look for what is left of a model need not look through TensorFlow each time."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    """Skip what TensorFlow cannot do on a processor that only oneDNN takes for an older one.

    TensorFlow asks the processor itself whether it has bfloat16, oneDNN its variable.
    """
    try:
        return (yield)
    except Exception as error:
        older = os.environ.get("ONEDNN_MAX_CPU_ISA")
        if older and type(error).__name__ == "AbortedError" and "primitive" in str(error):
            pytest.skip(f"oneDNN, told to be {older}, lacks what TensorFlow found: bfloat16")
        raise


@pytest.fixture(autouse=True)
def _same_random_numbers_in_every_run():
    """A test whose network happens to be a rare one would fail once in a hundred runs."""
    if "keras" in sys.modules:  # of no use to the tests that do without it, and slow to import
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _batches(request):
    """Let every function of the package take that many images at a time, unless it is told."""
    size = request.config.getoption("--batch")
    if size is not None:
        package = import_module("course_utils")
        for name in set(package.__all__) - {"attack", "checks", "labs"}:
            for function in vars(import_module(f"course_utils.{name}")).values():
                if "batch_size" in (getattr(function, "__kwdefaults__", None) or {}):
                    function.__kwdefaults__["batch_size"] = size
