"""Wrong labels by cleanlab, for test_labels_peers.py; runs in the environment of `make peers-env`.

python _with_cleanlab.py asked.npz answered.npz: labels and probabilities go in, which of the labels
cleanlab takes for wrong comes out.
"""

import sys

import numpy as np
from cleanlab.filter import find_label_issues


def main(asked, answered):
    given = np.load(asked)
    cases = zip(given["labels"], given["probabilities"], strict=True)
    settings = {"filter_by": "confident_learning", "n_jobs": 1}
    np.savez(answered, accused=[find_label_issues(*case, **settings) for case in cases])


if __name__ == "__main__":
    main(*sys.argv[1:])
