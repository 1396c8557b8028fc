"""Relevance by Zennit, for test_relevance_peers.py; runs in the environment of `make peers-env`.

python _with_zennit.py asked.npz answered.npz: a network as JSON, its weights, images and a class
go in, the relevance of each pixel by each composite comes out.
"""

import json
import sys
from types import ModuleType

import numpy as np
import torch
from torch import nn

# Zennit knows torchvision's networks by these names, and needs no more of it: it is left out of
# the environment because builds of it and of torch fit only in pairs.
for module in ("torchvision", "torchvision.models", "torchvision.models.resnet"):
    sys.modules[module] = ModuleType(module)
sys.modules[module].Bottleneck = type("Bottleneck", (nn.Module,), {})
sys.modules[module].BasicBlock = type("BasicBlock", (nn.Module,), {})

from zennit.attribution import Gradient  # noqa: E402
from zennit.canonizers import SequentialMergeBatchNorm  # noqa: E402
from zennit.composites import EpsilonAlpha2Beta1, EpsilonGammaBox, EpsilonPlus  # noqa: E402
from zennit.layer import Sum  # noqa: E402


class ChannelsLast(nn.Module):
    """Flatten in the order of Keras."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


class Plus(nn.Module):
    """The input of some layers added to what they put out."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.sum = inner, Sum()

    def forward(self, x):
        return self.sum(torch.stack([x, self.inner(x)], dim=-1))


def build(layers, weights):
    """The network of a list of [kind, options]; weights are Keras's, in order."""
    return nn.Sequential(*(layer(kind, options, weights) for kind, options in layers))


def layer(kind, options, weights):
    if kind == "conv":
        kernel = next(weights)
        bias = next(weights) if options["bias"] else None
        if options["depthwise"]:
            count = kernel.shape[2]
            kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
        else:
            count = 1
        made = nn.Conv2d(
            kernel.shape[2] * count,
            kernel.shape[3],
            kernel.shape[:2],
            stride=options["stride"],
            dilation=options["dilation"],
            padding=options["padding"],
            groups=count,
            bias=bias is not None,
        )
        made.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1).copy())
        if bias is not None:
            made.bias.data = torch.tensor(bias)
        return made
    if kind == "dense":
        kernel, bias = next(weights), next(weights)
        made = nn.Linear(*kernel.shape)
        made.weight.data, made.bias.data = torch.tensor(kernel.T.copy()), torch.tensor(bias)
        return made
    if kind == "norm":
        gamma, beta, mean, variance = (torch.tensor(next(weights)) for _ in range(4))
        # Keras's epsilon is part of the variance here: Zennit, when it has merged the layer, leaves
        # its epsilon behind, and with it a factor of 1 / sqrt(1 + epsilon).
        made = nn.BatchNorm2d(len(gamma), eps=0)
        made.weight.data, made.bias.data = gamma, beta
        made.running_mean.data, made.running_var.data = mean, variance + 1e-3
        return made
    if kind == "plus":
        return Plus(build(options["layers"], weights))
    simple = {
        "relu": nn.ReLU,
        "max": lambda: nn.MaxPool2d(2),
        "average": lambda: nn.AvgPool2d(2),
        "mean": lambda: nn.AdaptiveAvgPool2d(1),
        "flatten": ChannelsLast,
    }
    return simple[kind]()


def main(asked, answered):
    given = np.load(asked)
    count = sum(name.startswith("weight_") for name in given)
    weights = iter([given[f"weight_{i}"] for i in range(count)])
    network = build(json.loads(str(given["layers"])), weights).eval()
    images = torch.tensor(given["images"].transpose(0, 3, 1, 2).copy())
    target = int(given["target"])
    canonizers = [SequentialMergeBatchNorm()]
    composites = {
        "epsilon-plus": EpsilonPlus(canonizers=canonizers),
        "epsilon-gamma-box": EpsilonGammaBox(
            low=torch.tensor(float(given["low"])),
            high=torch.tensor(float(given["high"])),
            canonizers=canonizers,
        ),
        "epsilon-alpha2-beta1": EpsilonAlpha2Beta1(canonizers=canonizers),
    }

    def start(outputs):
        """The class's logit, as its own relevance."""
        chosen = torch.zeros_like(outputs)
        chosen[:, target] = outputs[:, target]
        return chosen

    found = {"logits": network(images).detach().numpy()}
    for name, composite in composites.items():
        with Gradient(network, composite) as attributor:
            _, relevance = attributor(images.clone(), start)
        found[name] = relevance.sum(dim=1).numpy()
    np.savez(answered, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
