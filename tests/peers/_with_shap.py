"""Shapley values by shap, for test_shapley_peers.py; runs in the environment of `make peers-env`.

python _with_shap.py asked.npz answered.npz: tables of games go in, the values of shap's exact and
kernel explainers come out.
"""

import sys

import numpy as np
import shap


def main(asked, answered):
    given, found = np.load(asked), {}
    for name in given.files:
        worths = given[name]
        players = len(worths).bit_length() - 1

        def worth(rows, worths=worths, players=players):
            return worths[(np.asarray(rows) > 0.5) @ (1 << np.arange(players))]

        nobody, everybody = np.zeros((1, players)), np.ones((1, players))
        if name.startswith("exact"):
            explainer = shap.explainers.Exact(worth, shap.maskers.Independent(nobody))
            found[name] = explainer(everybody, max_evals=2**players + 1).values[0]
        else:
            np.random.seed(0)  # noqa: NPY002 - the one that shap draws from
            explainer = shap.KernelExplainer(worth, nobody)
            found[name] = explainer.shap_values(everybody, nsamples=1000, silent=True)[0]
    np.savez(answered, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
