"""captum, shap and Zennit, for peers.py: python _peer_torch.py given.npz, in their environment.

Their options are their own, but where the course's function has to be met: the same number of
samples, nothing (0) where something is hidden, the same superpixels.
"""

import json
import sys
from pathlib import Path

import numpy as np
import shap
import torch
from _peer import given, in_batches, serve, weights
from captum import attr as ca
from captum._utils.models.linear_model import SkLearnRidge

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))
from _with_zennit import EpsilonPlus, Gradient, SequentialMergeBatchNorm, build

asked = given()


def network():
    return build(json.loads(str(asked["torch"])), iter(weights(asked))).eval()


model = network()
images = torch.tensor(asked["images"].transpose(0, 3, 1, 2).copy())
one, size, segments = images[:1], images.shape[2:], asked["segments"]
batch, patch, noise = int(asked["batch"]), int(asked["patch"]), float(asked["noise"])
parts = {"target": 0, "perturbations_per_eval": batch, "feature_mask": torch.tensor(segments)}


def forward(some):
    with torch.no_grad():
        return model(some).numpy()


def back(some):
    some = some.clone().requires_grad_()
    return torch.autograd.grad(model(some)[:, 0].sum(), some)[0].numpy()


def bare(run):
    return lambda count: in_batches(run, images, count, batch)


saliency = ca.Saliency(model)
slopes = ca.InputXGradient(model)
smooth = ca.NoiseTunnel(ca.Saliency(model))
path = ca.IntegratedGradients(model)
cam = ca.LayerGradCam(model, model[int(asked["module"])])
occlusion = ca.Occlusion(model)
lime = ca.Lime(model, interpretable_model=SkLearnRidge(alpha=1.0))
kernel = ca.KernelShap(model)


def in_order(maps):
    return maps.detach().numpy()


def smoothgrad(n):
    few = {"nt_samples": n, "nt_samples_batch_size": min(n, batch)}
    found = smooth.attribute(one, stdevs=noise, target=0, abs=False, **few)
    return in_order(found.abs().amax(1))


def grad_cam(n):
    maps = cam.attribute(images[:n], 0, relu_attributions=True)
    return in_order(ca.LayerAttribution.interpolate(maps, tuple(size), "bilinear")[:, 0])


def occlude(_):
    window = (one.shape[1], patch, patch)
    found = occlusion.attribute(one, window, strides=window, target=0, perturbations_per_eval=batch)
    return in_order(found.mean(1))


def by_shap(n):
    players = segments.max() + 1

    def worth(rows):
        shown = torch.tensor(np.asarray(rows, np.float32))
        found = []
        for start in range(0, len(shown), batch):
            found.append(forward(one * shown[start : start + batch, segments][:, None])[:, 0])
        return np.concatenate(found)

    explainer = shap.KernelExplainer(worth, np.zeros((1, players)))
    found = explainer.shap_values(np.ones((1, players)), nsamples=n, l1_reg=0, silent=True)
    return found[0][segments]


def start(outputs):
    """The class's logit, as its own relevance."""
    chosen = torch.zeros_like(outputs)
    chosen[:, 0] = outputs[:, 0]
    return chosen


# Zennit's hooks stay in its copy of the network from first to last.
with Gradient(network(), EpsilonPlus(canonizers=[SequentialMergeBatchNorm()])) as attributor:
    serve(
        {
            "bare: forward": bare(forward),
            "bare: back": bare(back),
            "captum: saliency": lambda n: in_order(saliency.attribute(images[:n], 0).amax(1)),
            "captum: gradient × input": lambda n: in_order(slopes.attribute(images[:n], 0).sum(1)),
            "captum: SmoothGrad": smoothgrad,
            "captum: integrated gradients": lambda n: in_order(
                path.attribute(
                    one, 0.0, 0, n_steps=n, method="riemann_middle", internal_batch_size=batch
                ).sum(1)
            ),
            "captum: Grad-CAM": grad_cam,
            "captum: occlusion": occlude,
            "captum: LIME": lambda n: in_order(lime.attribute(one, 0.0, n_samples=n, **parts))[
                :, 0
            ],
            "captum: Shapley values": lambda n: in_order(
                kernel.attribute(one, 0.0, n_samples=n, **parts)
            )[:, 0],
            "shap: Shapley values": by_shap,
            "zennit: relevance": lambda n: in_order(
                attributor(images[:n].clone(), start)[1].sum(1)
            ),
        },
        "torch",
        "captum",
        "shap",
        "zennit",
    )
