"""The course's own functions, for peers.py: python _peer_course.py given.npz."""

import keras
import tensorflow as tf
from _passes import forward, gradient
from _peer import given, in_batches, serve, weights

from course_utils import cam, gradients, lime_image, models, occlusion, relevance, shapley

asked = given()
model = keras.models.model_from_json(str(asked["keras"]))
model.set_weights(weights(asked))
logits = models.logit_model(model)
images, one, segments = asked["images"], asked["images"][:1], asked["segments"]
batch, patch = int(asked["batch"]), int(asked["patch"])
target = 1 if model.output_shape[-1] == 1 else 0  # of a sigmoid, 0 is the class that it denies
parts = {"segments": segments, "fill": 0.0, "score": "logit", "batch_size": batch}
asking = {"score": "logit", "batch_size": batch}


def bare(count, back):
    run = gradient(logits) if back else forward(logits)

    def once(some):
        classes = [tf.zeros(len(some), tf.int64)] if back else []
        run(tf.constant(some), *classes).numpy()

    in_batches(once, images, count, batch)


def lime(count):
    found = lime_image.explain_image(model, one[0], target, samples=count, ridge=1.0, **parts)
    return found.weights[segments]


serve(
    {
        "bare: forward": lambda n: bare(n, False),
        "bare: back": lambda n: bare(n, True),
        "this course: saliency": lambda n: gradients.saliency_map(
            model, images[:n], target, **asking
        ),
        "this course: gradient × input": lambda n: gradients.gradient_times_input(
            model, images[:n], target, **asking
        ),
        "this course: SmoothGrad": lambda n: gradients.smoothgrad(
            model, one, target, samples=n, **asking
        ),
        "this course: integrated gradients": lambda n: gradients.integrated_gradients(
            model, one, target, steps=n, **asking
        ),
        "this course: Grad-CAM": lambda n: cam.grad_cam(model, images[:n], target, **asking),
        "this course: occlusion": lambda _: occlusion.occlusion_map(
            model, one, target, patch=patch, **asking
        ),
        "this course: LIME": lime,
        "this course: RISE": lambda n: occlusion.rise_map(model, one, target, samples=n, **asking),
        "this course: Shapley values": lambda n: shapley.explain_parts(
            model, one[0], target, samples=n, **parts
        ).values[segments],
        "this course: relevance": lambda n: relevance.relevance_map(
            model, images[:n], target, rule="epsilon-plus", batch_size=batch
        ),
    },
    "tensorflow",
)
