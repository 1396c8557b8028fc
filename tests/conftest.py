"""What all tests share: the same random weights in every run."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _same_random_numbers_in_every_run():
    """A test whose network happens to be a rare one would fail once in a hundred runs."""
    if "keras" in sys.modules:  # of no use to the tests that do without it, and slow to import
        sys.modules["keras"].utils.set_random_seed(0)
