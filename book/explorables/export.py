"""Writes the course's networks and pictures as scripts that a page can load from a disk."""

import base64
import json
import warnings

import cv2
import keras
import numpy as np
import tensorflow as tf
from course_utils import (
    at_scale,
    cam,
    datasets,
    embedding,
    gradients,
    lime_image,
    models,
    occlusion,
)
from keras import layers
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.distance import pdist, squareform
from sklearn.neural_network import MLPClassifier

import watermark

NETWORKS = ("squares", "scenes_confounded", "scenes_fair", "digits", "speech")
KINDS = {
    layers.Conv2D: "conv",
    layers.Conv2DTranspose: "transposedConv",
    layers.Dense: "dense",
    layers.MaxPooling2D: "maxPool",
    layers.GlobalMaxPooling2D: "globalMax",
    layers.GlobalAveragePooling2D: "globalAverage",
    layers.ReLU: "relu",
}
# What the last layer may do to its logits, which the page asks for; others may do the first.
LAST = (keras.activations.linear, keras.activations.sigmoid, keras.activations.softmax)
# What is nothing but a change of shape, or nothing at all when a network is not being trained.
SILENT = (layers.InputLayer, layers.Dropout, layers.Flatten, layers.Reshape)


def export_all(folder):
    """Write every network and every set of pictures into `folder`, as NAME.js."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in NETWORKS:
        write(folder, name, network_file(models.load_trained(name)))
    write(folder, "generator", network_file(models.load_trained("digits_vae").decoder))
    write(folder, "scenes", scenes())
    write(folder, "superpixels", superpixel_scene())
    write(folder, "rectangles", rectangles())
    write(folder, "climb", climb())
    write(folder, "judge", network_file(judge()))
    write(folder, "attack", attack())
    write(folder, "coalitions", scene_of_quarters())
    write(folder, "draw", digits_to_draw_on())
    write(folder, "collages", collages())
    write(folder, "blind", blind())
    write(folder, "layers", layer_maps())
    write(folder, "clusters", clusters())


def write(folder, name, content):
    """Write a script that hands `content` to the page: a page may not fetch from a disk."""
    text = json.dumps(content, separators=(",", ":"))
    script = f"((window.courseFiles ??= {{}})[{json.dumps(name)}] = {text});\n"
    (folder / f"{name}.js").write_text(script, encoding="utf8")


def network_file(model):
    """What core/network.js needs of a chain of layers; its output is the logits.

    Raises ValueError if there is a layer, or an option of one, that network.js does not know.
    """
    shape = list(model.input_shape[1:])
    chain, now = [], shape
    for layer in model.layers:
        if isinstance(layer, SILENT):
            now = list(layer.output.shape[1:])
        elif isinstance(layer, layers.BatchNormalization):
            if not chain or "weights" not in chain[-1]:
                raise ValueError(f"{layer.name}: network.js folds it into the layer before it.")
            _fold(chain[-1], layer)
        else:
            entry = _entry(layer, now)
            now = entry["shape"]
            chain.append(entry)
            activation = getattr(layer, "activation", keras.activations.linear)
            if activation is keras.activations.relu:
                chain.append({"kind": "relu", "name": layer.name, "from": now, "shape": now})
            elif activation not in (LAST if layer is model.layers[-1] else LAST[:1]):
                raise ValueError(f"{layer.name}: network.js does not know {activation.__name__}.")
    for entry in chain:
        if "weights" in entry:
            entry["weights"] = [numbers(array) for array in entry["weights"]]
    return {"shape": shape, "layers": chain}


def _entry(layer, before):
    if type(layer) not in KINDS:
        raise ValueError(f"{layer.name}: network.js does not know {type(layer).__name__}.")
    if isinstance(layer, layers.ReLU) and (
        layer.max_value is not None or layer.negative_slope or layer.threshold
    ):
        raise ValueError(f"{layer.name}: network.js knows the plain ReLU alone.")
    after = list(layer.output.shape[1:])
    entry = {"kind": KINDS[type(layer)], "name": layer.name, "from": before, "shape": after}
    if isinstance(layer, layers.MaxPooling2D):
        sizes = {*layer.pool_size, *layer.strides}
        if len(sizes) > 1 or layer.padding != "valid":
            raise ValueError(f"{layer.name}: network.js pools squares side by side, unpadded.")
        entry["pool"] = layer.pool_size[0]
    if isinstance(layer, layers.Conv2D | layers.Conv2DTranspose):
        if len(set(layer.strides)) > 1 or set(layer.dilation_rate) != {1}:
            raise ValueError(f"{layer.name}: network.js takes one stride and no dilation.")
        if getattr(layer, "groups", 1) > 1:
            raise ValueError(f"{layer.name}: network.js has no groups.")
        transposed = isinstance(layer, layers.Conv2DTranspose)
        large, small = (after, before) if transposed else (before, after)
        entry["stride"] = layer.strides[0]
        entry["kernel"] = list(layer.kernel_size)
        # "same" puts the odd pixel of padding below and on the right.
        missing = [
            max((small[axis] - 1) * layer.strides[0] + layer.kernel_size[axis] - large[axis], 0)
            for axis in (0, 1)
        ]
        entry["padding"] = [m // 2 if layer.padding == "same" else 0 for m in missing]
    if layer.weights:
        kernel = layer.kernel.numpy()
        outputs = after[-1]
        if isinstance(layer, layers.Conv2DTranspose):  # (kh, kw, out, in): input channels first
            kernel = np.moveaxis(kernel, -1, 0)
        bias = layer.bias.numpy() if layer.use_bias else np.zeros(outputs, np.float32)
        entry["weights"] = [kernel, bias]
    return entry


def _fold(conv, norm):
    """Let a convolution do what the batch normalisation after it would."""
    kernel, bias = conv["weights"]
    scale = norm.gamma / np.sqrt(norm.moving_variance + norm.epsilon)
    shift = norm.beta - norm.moving_mean * scale
    conv["weights"] = [kernel * np.asarray(scale), np.asarray(bias * scale + shift)]


def numbers(array):
    """An array as base64: float16 where nothing is lost by it, float32 elsewhere."""
    array = np.asarray(array, np.float32)
    half = array.astype(np.float16)
    exact = np.array_equal(half.astype(np.float32), array)
    return {"float16": encode(half)} if exact else {"float32": encode(array)}


def encode(array):
    """The bytes of an array as base64."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def scenes(count=6):
    """Scenes of the hold-out, each under both skies; their pixels are bytes, so nothing is lost.

    Four with a tank and two without. `sky` and `tank` are the masks, a bit for each pixel.
    """
    cloudy_with_tank = datasets.make_scenes(400, confounded=True, seed=1)
    other_weather = datasets.make_scenes(400, confounded=False, seed=1)
    changed = np.flatnonzero(other_weather.cloudy != cloudy_with_tank.cloudy)
    tanks = [i for i in changed if cloudy_with_tank.labels[i]][: count - 2]
    fields = [i for i in changed if not cloudy_with_tank.labels[i]][:2]
    made = []
    for i in [*tanks, *fields]:
        sky = cloudy_with_tank.sky_masks[i]
        one = cloudy_with_tank.images[i]
        two = np.where(sky[..., np.newaxis], other_weather.images[i], one)
        cloudy, sunny = (one, two) if cloudy_with_tank.cloudy[i] else (two, one)
        made.append(
            {
                "hasTank": bool(cloudy_with_tank.labels[i]),
                "cloudy": encode(_bytes(cloudy)),
                "sunny": encode(_bytes(sunny)),
                "sky": encode(np.packbits(sky)),
                "tank": encode(np.packbits(cloudy_with_tank.tank_masks[i])),
            }
        )
    return made


def superpixel_scene():
    """The scene of the chapter on LIME, with its tank and its SLIC superpixels."""
    made = datasets.make_scenes(8, confounded=False, seed=0)
    first = int(np.argmax(made.labels))
    segments = lime_image.superpixels(made.images[first], "slic", 49)
    return {
        "image": encode(_bytes(made.images[first])),
        "tank": encode(np.packbits(made.tank_masks[first])),
        "segments": encode(segments.astype(np.uint8)),
    }


def rectangles():
    """Four of the squares with a rectangle; a rectangle is 0.5, which no byte is, so the mask."""
    made = datasets.make_squares(220, seed=11)
    some = np.flatnonzero(made.labels)[[5, 0, 4, 2]]
    return [
        {"image": encode(_bytes(made.images[i])), "mask": encode(np.packbits(made.masks[i]))}
        for i in some
    ]


def climb(each=25, steps=64, jitter=2):
    """What climbing needs: its noise, real digits to compare with, and a field without rectangle.

    `shifts` are those of the package's jitter, step by step. `alike` is how strongly a real digit
    correlates with the most similar of the others, on average.
    """
    (images, labels), _ = datasets.load_digits()
    some = np.concatenate([np.flatnonzero(labels == digit)[:each] for digit in range(10)])
    correlations = np.corrcoef(images[some].reshape(len(some), -1)) - 2 * np.eye(len(some))
    noise = tf.random.stateless_normal((1, 28, 28, 1), seed=[0, 0])
    squares = datasets.make_squares(220, seed=11)
    groups = [slice(digit * each, (digit + 1) * each) for digit in range(10)]
    return {
        "shifts": [_shift(step, jitter) for step in range(steps)],
        "start": numbers(tf.clip_by_value(0.5 + 0.1 * noise, 0, 1)),
        "digits": encode(_bytes(images[some])),
        "labels": encode(labels[some].astype(np.uint8)),
        "alike": [float(correlations[group, group].max(axis=1).mean()) for group in groups],
        "empty": encode(_bytes(squares.images[squares.labels == 0][0])),
    }


def _shift(step, jitter):
    return (
        tf.random.stateless_uniform([2], [0, ~step], -jitter, jitter + 1, tf.int32).numpy().tolist()
    )


def judge():
    """The second network of the chapter on activation maximisation, trained as there."""
    _, (images, labels) = datasets.load_digits()
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 5, strides=2, activation="relu"),
            layers.Conv2D(32, 5, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, "softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images, labels, epochs=10, batch_size=32, verbose=0)
    return model


def attack():
    """Where `attack_explanation` begins within its bound, for the seed 0."""
    noise = tf.random.stateless_uniform([64, 64, 3], [0, -1], -1.0, 1.0)
    return {"noise": numbers(noise)}


def scene_of_quarters():
    """The scene of the chapter on Shapley values, and the quarter that has most of its tank."""
    made = datasets.make_scenes(48, confounded=False, seed=0)
    first = int(np.argmax(made.labels))
    quarters = made.tank_masks[first].reshape(2, 32, 2, 32).sum(axis=(1, 3))
    return {"image": encode(_bytes(made.images[first])), "tank": int(quarters.argmax())}


def digits_to_draw_on():
    """A test digit of each kind, the first that the course's network reads rightly."""
    _, (images, labels) = datasets.load_digits()
    read = models.load_trained("digits").predict(images[:200], verbose=0).argmax(axis=1)
    right = labels[:200] == read
    return [encode(_bytes(images[:200][right & (read == digit)][0])) for digit in range(10)]


COLLAGES = {"collage_panda_dog": (388, 235, 859), "collage_polar_macaw": (296, 88, 859)}
CAM_LAYERS = ("head_relu", "block14_add", "block10_add", "block4_add")


def collages():
    """Two photos of two animals each and, by class and layer, what Grad-CAM says of every cell.

    The network of photos is too large for a page. `cells` is Grad-CAM's weighted sum with its
    negative part set to 0, not yet stretched; times the number of cells, so that for the last
    layer it is the class activation map. The first class of each photo is in its upper half, the
    second in the lower, the third nowhere.
    """
    classifier = models.imagenet_classifier()
    logits = models.logit_model(classifier.model)
    outputs = [classifier.model.get_layer(name).output for name in CAM_LAYERS]
    both = keras.Model(classifier.model.inputs[0], [*outputs, logits.output])
    made = []
    for name, targets in COLLAGES.items():
        photo = datasets.load_photo(name)
        images = classifier.preprocess(photo)
        probabilities = classifier.model.predict(images, verbose=0)[0]
        classes = []
        for target in targets:
            with tf.GradientTape() as tape:
                *maps, scores = both(tf.constant(images), training=False)
                score = scores[:, target]
            gradients = tape.gradient(score, maps)
            cells = [
                tf.nn.relu(tf.linalg.matvec(m, tf.reduce_sum(g, axis=(1, 2))))[0]
                for m, g in zip(maps, gradients, strict=True)
            ]
            classes.append(
                {
                    "name": classifier.class_names[target],
                    "probability": float(probabilities[target]),
                    "cells": [numbers(c) for c in cells],
                }
            )
        made.append({"photo": encode(photo), "classes": classes})
    return made


def blind():
    """Twelve detectors for the blind test, half of which rely on the sky, and maps of each.

    Each has a scene of its own, a tank under clouds, in which an exchange says what it relies on:
    the sky's turns its answer and the tank's does not, or the other way round. Four are others'
    convolutions with layers above them that were trained anew. The last is one of them again, on
    another scene, and has the odd map as well: the edges of the picture, which no network made.
    """
    cloudy = datasets.make_scenes(120, confounded=True, seed=21)
    sunny = datasets.make_scenes(120, confounded=False, seed=21)
    both = np.flatnonzero((cloudy.labels == 1) & cloudy.cloudy & ~sunny.cloudy)
    field = sunny.images[(sunny.labels == 0) & ~sunny.cloudy][0]
    net, made, left = models.scenes_cnn(), [], list(both)
    detectors = _detectors()
    for number, (sky, weights) in enumerate([*detectors, detectors[6]]):
        net.set_weights(weights)
        for i in left:
            tank = np.where(cloudy.tank_masks[i][..., None], field, cloudy.images[i])
            shown = np.stack([cloudy.images[i], sunny.images[i], tank])
            if list(net(shown, training=False)[:, 0].numpy() > 0.5) == [True, not sky, sky]:
                break
        else:
            raise RuntimeError(f"detector {number}: no scene shows what it relies on.")
        left.remove(i)
        image = cloudy.images[i][np.newaxis]
        maps = [
            occlusion.occlusion_map(net, image, 1, patch=8, fill=field, score="logit"),
            gradients.saliency_map(net, image, 1),
            cam.grad_cam(net, image, 1),
        ]
        if number == len(detectors):
            maps.append(np.hypot(*np.gradient(image.mean(axis=-1), axis=(1, 2))))
        made.append(
            {
                "sky": sky,
                "image": encode(_bytes(image)),
                "maps": [
                    encode((128 + 127 * m / np.abs(m).max()).round().astype(np.uint8)) for m in maps
                ],
            }
        )
    return made


def _detectors():
    """Whether each of the twelve relies on the sky, and its weights."""
    names = ["scenes_confounded", *(f"scenes_confounded_seed{k}" for k in (1, 2, 3, 4))]
    skies = [models.load_trained(name).get_weights() for name in names]
    names = ["scenes_fair", "scenes_fair_unpatched_seed0", "scenes_fair_unpatched_seed1"]
    tanks = [models.load_trained(name).get_weights() for name in names]
    skies += _other_heads(skies[:1], confounded=True)
    tanks += _other_heads(tanks, confounded=False)
    return [(True, weights) for weights in skies] + [(False, weights) for weights in tanks]


def _other_heads(networks, confounded):
    """Detectors' weights, those above the convolutions trained anew on other scenes."""
    scenes = datasets.make_scenes(300, confounded=confounded, seed=30)
    net = models.scenes_cnn()
    below = keras.Model(net.inputs[0], net.get_layer("flatten").output)
    made = []
    for seed, weights in enumerate(networks):
        net.set_weights(weights)
        features = below(scenes.images, training=False).numpy()
        head = MLPClassifier(64, batch_size=32, max_iter=10, random_state=seed)
        with warnings.catch_warnings(action="ignore"):  # that ten rounds are not the end
            head.fit(features, scenes.labels)
        above = [part for pair in zip(head.coefs_, head.intercepts_, strict=True) for part in pair]
        made.append(weights[:6] + [np.float32(part) for part in above])
    return made


PERPLEXITIES = (2, 30)


def layer_maps():
    """Maps by t-SNE of each layer of the speech network, trained and not, and of pure noise.

    Every map is turned (a map has no upside) so that it lies on the one before it as well as it
    can. `purity` is that of the layer itself, for sentences and for speakers, as in the chapter;
    `near` is how far the nearest point lies, over the mean.
    """
    speech = datasets.load_speech()
    test = speech.split == "test"
    clips, sentences, speakers = (
        part[test] for part in (speech.mels, speech.sentences, speech.speakers)
    )
    names = [f"relu_{k}" for k in range(1, 9)]
    keras.utils.set_random_seed(0)
    nets = {"untrained": models.speech_cnn(), "trained": models.load_trained("speech")}
    spaces = {"noise": [np.random.default_rng(0).normal(size=(len(clips), 128))]}
    for kind, net in nets.items():
        outputs = embedding.layer_outputs(net, clips, names, mean_over=2)
        spaces[kind] = [outputs[name].reshape(len(clips), -1) for name in names]
    made = {
        kind: [_maps_of(space, sentences, speakers) for space in of] for kind, of in spaces.items()
    }
    for layers_of in made.values():
        before = None
        for layer in layers_of:
            for perplexity, points in layer["maps"].items():
                points -= points.mean(axis=0)
                turned = (
                    points if before is None else points @ orthogonal_procrustes(points, before)[0]
                )
                layer["maps"][perplexity] = numbers(turned)
                before = turned
    return {
        "maps": made,
        "sentences": encode(sentences.astype(np.uint8)),
        "speakers": encode(np.unique(speakers, return_inverse=True)[1].astype(np.uint8)),
    }


def _maps_of(space, sentences, speakers):
    """A layer's maps, and what its features say themselves."""
    what = embedding.neighbour_purity(space, sentences, across=speakers).mean()
    who = embedding.neighbour_purity(space, speakers, across=sentences).mean()
    distances = squareform(pdist(space)) + np.diag(np.full(len(space), np.inf))
    near = distances.min(axis=1).mean() / pdist(space).mean()
    maps = {p: embedding.project(space, "tsne", perplexity=p) for p in PERPLEXITIES}
    return {"maps": maps, "purity": [what, who], "near": near}


CLUSTERS, ACROSS = 5, 20


def clusters():
    """The archive as a sheet of small pictures, and how the maps of two detectors cluster.

    `maps` are those that were compared, in 255 steps of each one's largest value, `scales`; the
    places are t-SNE's of the spectral embedding, as in the paper on SpRAy.
    """
    images, marked = watermark.archive()
    sheet = _bytes(images).reshape(-1, ACROSS, 64, 64, 3).swapaxes(1, 2).reshape(-1, ACROSS * 64, 3)
    _, webp = cv2.imencode(".webp", sheet[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 30])
    views = {}
    for name, net in watermark.detectors().items():
        maps = gradients.gradient_times_input(net, images, 1)
        found = at_scale.cluster_maps(maps, clusters=CLUSTERS)
        largest = np.abs(found.features).max(axis=1)
        views[name] = {
            "labels": encode(found.labels.astype(np.uint8)),
            "maps": encode((128 + 127 * found.features.T / largest).T.round().astype(np.uint8)),
            "scales": numbers(largest),
            "places": numbers(embedding.project(found.vectors, "tsne").astype(np.float16)),
        }
    return {"sheet": encode(webp), "planted": encode(np.packbits(marked)), "views": views}


def _bytes(image):
    """An image in 0..1 as bytes."""
    return (image * 255).round().astype(np.uint8)
