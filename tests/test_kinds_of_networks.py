"""Every function that takes a network, with every kind of network that a user may bring.

A kind is built so that it computes what a plain network of float images (N, H, W, C) does, its
twin: what a function says of it has to be what it says of the twin, or a ValueError in one line.
A new public function whose first parameter is `model` joins by itself.
"""

import functools
import importlib
import inspect
import pkgutil

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import course_utils
from course_utils import cam, gradients, inspection, keras_vis, lime_image, models, occlusion

H, W, C = 10, 12, 3
PHOTOS = np.random.default_rng(0).integers(0, 256, (2, H, W, C)).astype(np.float32)


def body(inputs, *, scale=True, relu="relu", last=None, convolve=None, **options):
    """The layers that all kinds have; `last` are the options of those behind the maps."""
    axis = 1 if options.get("data_format") == "channels_first" else -1
    x = layers.Rescaling(1 / 64, -2, dtype=options.get("dtype"))(inputs) if scale else inputs
    x = layers.Conv2D(4, 3, activation=relu, name="conv", **options)(x)
    x = layers.BatchNormalization(axis=axis, dtype=options.get("dtype"))(x)
    x = layers.MaxPooling2D(2, 1, **options)(x)
    x = layers.Conv2D(5, 3, strides=2, padding="same", activation=relu, name="maps", **options)(x)
    x = layers.GlobalAveragePooling2D(**options)(x)
    return layers.Dense(3, activation="softmax", name="classes", **(last or {}))(x)


def weights_for(model):
    """The same random weights for every kind, whatever the order of its variables' names."""
    rng = np.random.default_rng(5)
    model.set_weights(
        [
            rng.uniform(0.5, 1.5, w.shape) if "variance" in w.path else rng.normal(0, 0.5, w.shape)
            for w in model.weights
        ]
    )
    return model


def network(inputs, outputs=None, **options):
    return weights_for(keras.Model(inputs, body(inputs, **options) if outputs is None else outputs))


def photo_input(**options):
    return keras.Input((H, W, C), **options)


@functools.cache
def twin():
    return network(photo_input())


def integers(dtype):
    return network(photo_input(dtype=dtype))


def nested_integers():
    return keras.Sequential([photo_input(dtype="uint8"), integers("uint8")])


def half(policy):
    return network(photo_input(), dtype=policy, last={"dtype": policy})


def channels_first():
    return network(keras.Input((C, H, W)), data_format="channels_first")


def nested_channels_first():
    return keras.Sequential([keras.Input((C, H, W)), channels_first()])


def permuted():
    """It takes channels first, and all its layers have them last."""
    inputs = keras.Input((C, H, W))
    return network(inputs, body(layers.Permute((2, 3, 1))(inputs)))


def permuted_to_first():
    """It takes channels last, and its convolutions have them first."""
    inputs = photo_input()
    x = ops.transpose(inputs, (0, 3, 1, 2))
    return network(inputs, body(x, data_format="channels_first"))


def operation_in_front():
    inputs = photo_input()
    return network(inputs, body(inputs / 64 - 2, scale=False))


def operations_between():
    return network(photo_input(), relu=lambda x: ops.maximum(x, 0.0))


def operations_of_integers():
    inputs = photo_input(dtype="uint8")
    return network(inputs, body(ops.cast(inputs, "float32") / 64 - 2, scale=False))


def named(structure):
    inputs = photo_input()
    return network(inputs, structure(body(inputs)))


def named_input():
    inputs = photo_input(name="photo")
    return weights_for(keras.Model({"photo": inputs}, body(inputs)))


@functools.cache
def _folder():
    import tempfile

    folder = tempfile.mkdtemp(prefix="kinds_")
    twin().export(folder, verbose=False)
    return folder


def saved_model():
    layer = layers.TFSMLayer(_folder(), call_endpoint="serving_default")
    return keras.Sequential([photo_input(), layer])


def nested():
    return keras.Sequential([photo_input(), network(photo_input())])


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = network(photo_input())

    def call(self, images):
        return self.inner(images)


def wrapped():
    inputs = photo_input()
    return keras.Model(inputs, Own()(inputs))


def composed():
    logits = models.logit_model(network(photo_input()))
    return keras.Model(logits.inputs[0], ops.softmax(logits.outputs[0]))


def changed_activation():
    """Another activation than when it was first explained."""
    model = network(photo_input(), relu="tanh")
    use(model)
    for layer in model.layers:
        if hasattr(layer, "activation") and layer.name != "classes":
            layer.activation = keras.activations.relu
    return model


def changed_call():
    model = network(photo_input(), relu=None)
    use(model)
    for name in ("conv", "maps"):
        layer = model.get_layer(name)
        layer.call = functools.partial(_relu_after, layer.call)
    return model


def _relu_after(call, inputs):
    return ops.relu(call(inputs))


def low_rank():
    """Trained with LoRA since it was first explained, to the weights of the twin."""
    model = network(photo_input())
    use(model)
    layer = model.get_layer("classes")
    kernel = layer.kernel.numpy()
    layer._kernel.assign(kernel - 0.5)
    layer.enable_lora(2)
    layer.lora_kernel_a.assign(np.ones_like(layer.lora_kernel_a))
    layer.lora_kernel_b.assign(np.full_like(layer.lora_kernel_b, 0.25))
    np.testing.assert_allclose(layer.kernel.numpy(), kernel, atol=1e-6)
    return model


def use(model):
    """Let everything be compiled that is kept."""
    gradients.saliency_map(model, PHOTOS[:1], 0)
    for score in ("probability", "logit"):
        occlusion.occlusion_map(model, PHOTOS[:1], 0, patch=4, score=score)


def from_file():
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        twin().save(f"{folder}/model.keras")
        return keras.models.load_model(f"{folder}/model.keras")


KINDS = {
    "bytes": lambda: integers("uint8"),
    "int32": lambda: integers("int32"),
    "nested integers": nested_integers,
    "operations of integers": operations_of_integers,
    "channels first": channels_first,
    "nested, channels first": nested_channels_first,
    "permuted": permuted,
    "permuted to channels first": permuted_to_first,
    "operation in front": operation_in_front,
    "operations between": operations_between,
    "dictionary": lambda: named(lambda x: {"class": x}),
    "list": lambda: named(lambda x: [x]),
    "named input": named_input,
    "float16": lambda: half("mixed_float16"),
    "bfloat16": lambda: half("mixed_bfloat16"),
    "float64": lambda: half("float64"),
    "float16 behind": lambda: network(photo_input(), last={"dtype": "mixed_float16"}),
    "float16 images": lambda: network(photo_input(dtype="float16")),
    "batch of two": lambda: network(keras.Input(batch_shape=(2, H, W, C))),
    "open size": lambda: network(keras.Input((None, None, C))),
    "nested": nested,
    "wrapped subclass": wrapped,
    "SavedModel": saved_model,
    "composed": composed,
    "changed activation": changed_activation,
    "changed call": changed_call,
    "LoRA": low_rank,
    "from a file": from_file,
    "functions run eagerly": lambda: network(photo_input()),
}
FIRST = {"channels first", "nested, channels first", "permuted"}
HALF = {"float16": 0.05, "bfloat16": 0.3, "float16 behind": 0.02, "float16 images": 0.02}


def own_channels():
    return keras.Sequential([keras.Input((H, W)), layers.Flatten(), layers.Dense(2)])


def several(inputs, outputs):
    tensors = [photo_input() for _ in range(inputs)]
    x = layers.Flatten()(layers.Concatenate()(tensors) if inputs > 1 else tensors[0])
    return keras.Model(tensors, [layers.Dense(2)(x) for _ in range(outputs)])


def called(model):
    model(PHOTOS)
    return model


def keras_2():
    import tf_keras

    parts = [tf_keras.layers.Conv2D(2, 3, name="conv"), tf_keras.layers.Flatten()]
    shape = tf_keras.Input((H, W, C))
    return tf_keras.Sequential([shape, *parts, tf_keras.layers.Dense(3)])


def unbuilt():
    return keras.Sequential([layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(3)])


REFUSED = {
    "subclass": lambda: called(Own()),
    "unbuilt": unbuilt,
    "two inputs": lambda: several(2, 1),
    "two outputs": lambda: several(1, 2),
    "of tf_keras": keras_2,
    "function": lambda: lambda images: images.mean(axis=(1, 2)),
    "layer": lambda: layers.Dense(3),
    "images without channels": own_channels,
    "scores of pixels": lambda: keras.Sequential([photo_input(), layers.Conv2D(2, 3, name="conv")]),
    "no classes": lambda: keras.Sequential(
        [photo_input(), layers.Flatten(), layers.Dense(1), layers.Reshape(())]
    ),
}


def functions():
    """All public functions of the package that take a network first, by their names."""
    found = {"models.logit_model": models.logit_model}
    for module in pkgutil.iter_modules(course_utils.__path__):
        if module.name.startswith("_") or module.name in ("labs", "data"):
            continue
        loaded = importlib.import_module(f"course_utils.{module.name}")
        for name, function in vars(loaded).items():
            if inspect.isfunction(function) and function.__module__ == loaded.__name__:
                first = next(iter(inspect.signature(function).parameters), None)
                if first == "model" and not name.startswith("_"):
                    found[f"{module.name}.{name}"] = function
    return found


FUNCTIONS = functions()

# What the parameters without a default are called with. A new name has to come here.
HEATMAPS = np.random.default_rng(1).random((2, H, W))
SEGMENTS = np.arange(H * W).reshape(H, W) * 4 // (H * W)
ARGUMENTS = {
    "images": PHOTOS,
    "inputs": PHOTOS,
    "image": PHOTOS[0],
    "targets": np.array([0, 2]),
    "target": 1,
    "heatmaps": HEATMAPS,
    "segments": SEGMENTS,
    "layer": "conv",
    "layers": ["maps"],
    "epsilon": 8.0,
    "to": 1,
    "masks": HEATMAPS[..., np.newaxis] > [0.4, 0.7],
    "vectors": np.random.default_rng(2).normal(size=(3, 8, 10, 4)),
    "concepts": np.arange(12) % 3 == 0,
}
# Of one function only, by its name and the parameter's.
_MANY = (
    np.random.default_rng(3).integers(0, 128, (12, H, W, C))
    + 100 * (np.arange(12) % 3 == 0)[:, np.newaxis, np.newaxis, np.newaxis]
)
OWN_ARGUMENTS = {
    (f"concepts.{name}", "images"): _MANY.astype(np.float32)
    for name in ("probe", "concept_vectors")
}
# Fewer steps than by default, and what one of several options has to be given.
OPTIONS = {
    "activation.maximize_activation": {"target": 1, "steps": 2},
    "attack.attack_explanation": {"steps": 2},
    "attack.randomize_layers": {"top": 1},
    "lime_image.explain_image": {"samples": 40},
    "lime_image.lime_map": {"samples": 40, "n_segments": 6},
    "occlusion.occlusion_map": {"patch": 4},
    "gradients.smoothgrad": {"samples": 4},
    "gradients.integrated_gradients": {"steps": 8},
    "metrics.deletion_curve": {"steps": 4},
    "metrics.insertion_curve": {"steps": 4},
    "shapley.shapley_map": {"n_segments": 6},
    "concepts.dissect": {"quantile": 0.8},
}
# What they return are tables of names, drawings and networks, not numbers that could be compared.
NOT_NUMBERS = {
    "attack.randomize_layers",
    "inspection.layer_table",
    "models.logit_model",
    "models.set_weights",
    "plots.show_architecture",
}
# They follow signs, or slopes of length one, or count what lies above a threshold: rounding turns
# the first always, the others in half precision.
SEARCHES = {"attack.attack_explanation"}
HALF_SEARCHES = {"activation.maximize_activation"}
HALF_SEARCHES |= {"concepts.probe", "concepts.tcav_scores", "concepts.dissect"}
# They fit probabilities, which are rounded as such.
FITS = {"lime_image.explain_image", "lime_image.lime_map"}
# They start a process for each call; here it does not start.
IN_A_PROCESS = {name for name in FUNCTIONS if name.startswith("keras_vis.")}


def is_needed(parameter):
    return parameter.default is parameter.empty and parameter.kind != parameter.VAR_KEYWORD


def call(name, model, kind="twin"):
    """What the function says of a model, which is given images as it takes them."""
    arguments = {}
    for parameter in list(inspect.signature(FUNCTIONS[name]).parameters.values())[1:]:
        if parameter.name == "arrays":
            arguments["arrays"] = {weight.path: weight.numpy() for weight in model.weights}
        elif is_needed(parameter):
            value = OWN_ARGUMENTS.get((name, parameter.name), ARGUMENTS.get(parameter.name))
            photos = parameter.name in ("images", "inputs", "image") and kind in FIRST
            arguments[parameter.name] = np.moveaxis(value, -1, -3) if photos else value
    tf.config.run_functions_eagerly(kind == "functions run eagerly")
    try:
        return FUNCTIONS[name](model, **arguments, **OPTIONS.get(name, {}))
    finally:
        tf.config.run_functions_eagerly(False)


@functools.cache
def expected(name):
    return arrays(call(name, twin()))


def arrays(result):
    """The numbers of a result, whatever it is made of."""
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, list) and isinstance(result[0], inspection.ReceptiveField):
        result = [row for row in result if row.name in ("conv", "maps")]  # of operations, too
    if isinstance(result, (tuple, list)):
        return [array for part in result for array in arrays(part)]
    number = isinstance(result, (np.ndarray, float, int)) and not isinstance(result, bool)
    return [np.asarray(result)] if number else []


@functools.cache
def of_kind(kind):
    return KINDS[kind]()


def is_one_line(error):
    text = str(error)
    return "\n" not in text and 20 < len(text) < 700 and text.rstrip().endswith((".", "?"))


# Cells that may only be refused, and why.
MAY_REFUSE = {
    # To round an attacked image undoes the attack.
    **{(kind, "attack.attack_explanation"): "whole numbers" for kind in KINDS if "int" in kind},
    ("bytes", "attack.attack_explanation"): "whole numbers",
    ("operations of integers", "attack.attack_explanation"): "whole numbers",
    # Nor does the smallest change survive it.
    **{
        (kind, "counterfactual.counterfactual"): "whole numbers"
        for kind in KINDS
        if "int" in kind or kind == "bytes"
    },
    ("open size", "activation.maximize_activation"): "one fixed size",
    ("open size", "plots.show_architecture"): "a fixed size",
    ("open size", "inspection.receptive_fields"): "leaves open",
}
# What a nested model, a file of another program or one's own code hides.
HIDES_ITS_LAYERS = {"wrapped subclass", "SavedModel"}
SEES_NO_LAYERS = (
    "no layer",
    "no convolution",
    "no feature maps",
    "no two-dimensional",
    "logit_model",
    "graph of layers",
    "Functional API",
)
NO_FIELD = ("nested", "wrapped subclass", "SavedModel", "permuted")


def may_refuse(kind, name, error):
    """Whether a kind may be refused by a function with this error."""
    if (kind, name) in MAY_REFUSE:
        return MAY_REFUSE[kind, name] in str(error)
    if kind in HIDES_ITS_LAYERS and any(word in str(error) for word in SEES_NO_LAYERS):
        return True
    if name == "inspection.receptive_fields" and kind.startswith(NO_FIELD):
        return "not defined" in str(error)
    if name == "relevance.relevance_map" and "no rule for" in str(error):
        return "operation" in kind or kind in ("changed call", "permuted to channels first")
    return name in IN_A_PROCESS or (name == "attack.randomize_layers" and "copied" in str(error))


@pytest.fixture(autouse=True)
def _no_process_no_figures(monkeypatch):
    """keras-vis is not started: what it would have to answer counts as said. Figures go."""

    def answer(folder, timeout):
        np.savez(f"{folder}/answer.npz", answers=np.zeros(1))

    monkeypatch.setattr(keras_vis, "_wait_for_process", answer)
    yield
    plt.close("all")


def said(name, model, kind="twin"):
    """What a function returns, and the ValueError that it raises; one of them is None."""
    try:
        return call(name, model, kind), None
    except ValueError as error:
        return None, error


def check(kind, name):
    """Assert that what the function says of the kind is what it says of the twin, or an error."""
    result, error = said(name, of_kind(kind), kind)
    if error is not None:
        assert is_one_line(error), str(error)
        assert may_refuse(kind, name, error), str(error)
    elif name not in NOT_NUMBERS | IN_A_PROCESS:
        found, right = arrays(result), expected(name)
        searches = name in SEARCHES or (kind in HALF and name in HALF_SEARCHES)
        assert len(found) == len(right)
        for one, other in zip(found, right, strict=True):
            assert_same(one, other, kind, not searches, 0.05 if name in FITS else 0)


def assert_same(one, other, kind, exactly, least):
    """`exactly` but for rounding, measured by the largest value, or `least` in half precision."""
    if one.shape != other.shape:  # images and maps as a model with channels first has them
        one = np.moveaxis(one, -3, -1)
    assert one.shape == other.shape
    assert one.dtype == other.dtype
    if exactly:
        size = np.abs(other).max(initial=least if kind in HALF else 0)
        tolerance = HALF.get(kind, 1e-4) * size + 1e-7
        assert np.abs(one.astype(float) - other).max(initial=0) <= tolerance


COMMON = ("gradients.saliency_map", "occlusion.occlusion_map")
FEW = ("channels first",)  # of bytes there are random networks in test_networks.py


def cells(common):
    """The (kind, function) of the table that are tried in the usual run, or the others."""
    table = [(kind, name) for kind in KINDS for name in FUNCTIONS]
    return [cell for cell in table if (cell[0] in FEW or cell[1] in COMMON) == common]


@pytest.mark.parametrize(("kind", "name"), cells(common=True))
def test_a_function_is_right_about_a_kind_of_network(kind, name):
    check(kind, name)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), cells(common=False))
def test_every_function_is_right_about_every_kind_of_network(kind, name):
    check(kind, name)


@functools.cache
def refused(kind):
    return REFUSED[kind]()


@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_function_can_explain_is_refused_in_one_line(kind):
    for name in sorted(set(FUNCTIONS) - {"models.set_weights"}):
        explains = "targets" in inspect.signature(FUNCTIONS[name]).parameters
        _, error = said(name, refused(kind))
        assert error is None or is_one_line(error), (name, str(error))
        assert error is not None or not explains, name


def test_the_table_is_complete():
    assert {"gradients.saliency_map", "cam.grad_cam", "metrics.deletion_curve"} < set(FUNCTIONS)
    for name, function in FUNCTIONS.items():
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            if is_needed(parameter) and parameter.name != "arrays":
                assert parameter.name in ARGUMENTS, f"say in ARGUMENTS what {name} is called with"


def test_the_kinds_compute_what_their_twin_does():
    right = twin().predict(PHOTOS, verbose=0)
    for kind in KINDS:
        images = np.moveaxis(PHOTOS, -1, 1) if kind in FIRST else PHOTOS
        model = of_kind(kind)
        run = tf.function(functools.partial(model, training=False))
        if kind in FIRST or kind == "permuted to channels first":
            continue  # without oneDNN, TensorFlow computes these on no CPU
        given = tf.constant(images.astype(model.inputs[0].dtype))
        if kind == "named input":  # a dictionary, of whose lack Keras would warn
            given = {"photo": given}
        found = keras.tree.flatten(run(given))[0]
        np.testing.assert_allclose(found, right, atol=HALF.get(kind, 1e-5))


def test_ten_networks_are_explained_without_a_warning_of_retracing(caplog):
    """TensorFlow warns where five of the last calls of one function were compiled anew."""
    for seed in range(10):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((8, 8, 1), dtype=("float32", "uint8")[seed % 2])
        x = layers.Flatten()(layers.Conv2D(2, 3, name="conv")(inputs / 2))
        model = keras.Model(inputs, layers.Dense(2, activation="softmax")(x))
        image = np.ones((1, 8, 8, 1))
        gradients.saliency_map(model, image, 0)
        occlusion.occlusion_map(model, image, 0, patch=2 + seed % 3)
        cam.grad_cam(model, image, 0)
        lime_image.lime_map(model, image, 0, n_segments=4, samples=10)
    assert "retracing" not in caplog.text


def test_a_layer_with_its_channels_first_may_be_called_twice():
    keras.utils.set_random_seed(0)
    models_of = []
    for place in ("channels_first", "channels_last"):
        shape = (C, H, W) if place == "channels_first" else (H, W, C)
        inputs = x = keras.Input(shape)
        pool = layers.MaxPooling2D(2, data_format=place)
        again = layers.Conv2D(C, 3, padding="same", data_format=place, activation="relu")
        for _ in range(2):
            x = pool(again(x))
        x = layers.GlobalAveragePooling2D(data_format=place)(x)
        models_of.append(keras.Model(inputs, layers.Dense(3)(x)))
    first, last = models_of
    first.set_weights(last.get_weights())
    found = gradients.saliency_map(first, np.moveaxis(PHOTOS, -1, 1), 1)
    np.testing.assert_allclose(found, gradients.saliency_map(last, PHOTOS, 1), rtol=1e-5, atol=1e-7)
    assert found.any()
