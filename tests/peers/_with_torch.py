"""Concept vectors by scikit-learn and their slopes by torch, for test_concepts_peers.py.

python _with_torch.py asked.npz answered.npz: what a layer puts out (N, rows, columns, channels),
the layers behind it (pooling, a hidden Dense, one score) and the labels of concepts go in; out come
the vectors, the slope of each image's score along each, and the TCAV scores.
"""

import sys

import numpy as np
import torch
from sklearn.linear_model import Ridge

asked = {name: torch.tensor(array) for name, array in np.load(sys.argv[1]).items()}
maps = asked["maps"].double()
flat = maps.flatten(1).numpy()
alpha = float(asked["ridge"]) * np.mean(np.sum((flat - flat.mean(axis=0)) ** 2, axis=1))
vectors = []
for has in asked["labels"].numpy().T:
    normal = Ridge(alpha=alpha, solver="cholesky").fit(flat, has).coef_
    vectors.append(normal / np.linalg.norm(normal))

maps.requires_grad_()
pooled = torch.nn.functional.max_pool2d(maps.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1).flatten(1)
hidden = torch.relu(pooled @ asked["kernel_1"].double() + asked["bias_1"].double())
scores = hidden @ asked["kernel_2"].double() + asked["bias_2"].double()
scores.sum().backward()
slopes = maps.grad.flatten(1).numpy() @ np.transpose(vectors)
np.savez(sys.argv[2], vectors=vectors, slopes=slopes, tcav=(slopes > 0).mean(axis=0))
