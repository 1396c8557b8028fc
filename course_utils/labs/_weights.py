"""Several networks' weights in one file."""

from course_utils.datasets import load_arrays


def weights_of(name, file):
    """The arrays of one of the networks in a file of several, without its name before each."""
    arrays = load_arrays(file)
    return {path.split("/", 1)[1]: w for path, w in arrays.items() if path.startswith(f"{name}/")}
