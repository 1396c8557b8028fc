"""Scores by Quantus, for test_metrics_peers.py; runs in the environment of `make peers-env`.

python _with_quantus.py asked.npz answered.npz: a network's weights, images, maps and masks go in,
what Quantus's metrics say of them comes out.
"""

import sys

import numpy as np
import torch

sys.modules["zennit"] = None  # where Quantus finds it, it wants torchvision as well
import quantus  # noqa: E402
from quantus.functions.perturb_func import noisy_linear_imputation  # noqa: E402
from quantus.functions.similarity_func import correlation_spearman  # noqa: E402


def network(given):
    """The network of two dense layers."""
    first, second = given["first"], given["second"]
    layers = [torch.nn.Flatten(), torch.nn.Linear(*first.shape), torch.nn.ReLU()]
    layers.append(torch.nn.Linear(*second.shape))
    with torch.no_grad():
        layers[1].weight[:], layers[3].weight[:] = torch.tensor(first.T), torch.tensor(second.T)
        layers[1].bias[:] = layers[3].bias[:] = 0
    return torch.nn.Sequential(*layers).eval()


def main(asked, answered):
    given = np.load(asked)
    images, labels = given["images"][:, np.newaxis], given["labels"]  # channels first
    maps, masks = given["maps"][:, np.newaxis], given["masks"][:, np.newaxis]
    plain = {"abs": False, "normalise": False, "disable_warnings": True}
    data = {"model": network(given), "x_batch": images, "y_batch": labels, "device": "cpu"}
    data |= {"channel_first": True, "softmax": False}
    found = {}
    for name in ("PointingGame", "RelevanceMassAccuracy", "RelevanceRankAccuracy"):
        marks = getattr(quantus, name)(**plain)(**data, a_batch=np.abs(maps), s_batch=masks)
        found[name] = np.asarray(marks, float)
    flipped = quantus.PixelFlipping(features_in_step=1, perturb_baseline=0.0, **plain)
    found["PixelFlipping"] = np.asarray(flipped(**data, a_batch=maps))
    # Quantus covers one patch after the other without uncovering the last; here each is alone.
    flat = images.reshape(len(images), -1)

    def alone(arr, indices, **kwargs):
        covered = flat.copy()
        np.put_along_axis(covered, np.asarray(indices).reshape(len(flat), -1), 0.0, axis=1)
        return covered

    infidelity = quantus.Infidelity(
        perturb_patch_sizes=[4], n_perturb_samples=1, perturb_func=alone, **plain
    )
    found["Infidelity"] = np.asarray(infidelity(**data, a_batch=maps))
    noise = iter(given["noise"])

    def add_noise(arr, indices, **kwargs):
        return arr + next(noise).reshape(1, -1)

    def explain(model, inputs, targets, **kwargs):
        inputs = inputs.detach().numpy() if torch.is_tensor(inputs) else inputs
        return np.sin(3 * inputs) * inputs

    sensitivity = quantus.MaxSensitivity(
        nr_samples=len(given["noise"]),
        perturb_func=add_noise,
        return_nan_when_prediction_changes=False,
        **plain,
    )
    found["MaxSensitivity"] = np.asarray(
        sensitivity(**data, a_batch=explain(None, images, labels), explain_func=explain)
    )
    shares = given["shares"]
    road = quantus.ROAD(percentages=[*(100 * shares)], noise=0.0, **plain)
    found["ROAD"] = np.array([*road(**data, a_batch=maps).values()])
    order = np.argsort(-given["maps"].reshape(len(maps), -1), axis=1)
    found["imputed"] = np.stack(
        [
            [
                noisy_linear_imputation(x, o[: round(s * o.size)], noise=0.0)[0]
                for x, o in zip(images, order, strict=True)
            ]
            for s in shares
        ]
    )
    found["spearman"] = correlation_spearman(
        given["maps"].reshape(len(maps), -1), flat, batched=True
    )
    np.savez(answered, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
