"""Ask a Keras model about one image; and pack a small one for a page without Python."""

from __future__ import annotations

import base64

import numpy as np

IGNORED = {"InputLayer", "Flatten", "Dropout", "Reshape", "SpatialDropout1D", "GaussianNoise"}
SMALLEST = 1e-30  # a score of 0 has no logarithm


def logits_of(model, image):
    """Return a model's logits for one image: log p, where its last layer is a softmax."""
    shape = tuple(getattr(model, "input_shape", None) or (None, 28, 28))[1:]
    if np.prod(shape) != image.size:
        raise ValueError(f"the model takes an array of shape {shape}, and the pad makes (28, 28)")
    output = np.asarray(model(image.reshape((1, *shape)), training=False), np.float32)[0]
    if output.shape != (10,):
        raise ValueError(f"the model answers with an array of shape {output.shape}, not (10,)")
    if not ends_in_softmax(model):
        return output
    return np.log(np.maximum(output, SMALLEST))


def seen(model, image):
    """Return what the browser shows of an image: pixels to 255 and, if there is a model, logits."""
    found = {"pixels": np.rint(image * 255).astype(int).ravel().tolist()}
    if model is not None:
        found["logits"] = [float(logit) for logit in logits_of(model, image)]
    return found


def softmax(logits, temperature=1.0):
    """Return the scores of logits that are divided by a temperature first."""
    divided = np.asarray(logits, float) / temperature
    powers = np.exp(divided - divided.max())
    return powers / powers.sum()


def layers_of(model):
    """Return a model's layers in order, those of models within it, too."""
    layers = []
    for layer in model.layers:
        layers += layers_of(layer) if hasattr(layer, "layers") else [layer]
    return layers


def activation_of(layer):
    """Return the name of what a layer applies to its result, such as `relu`; `linear` for none."""
    kind = type(layer).__name__
    if kind in ("ReLU", "Softmax"):
        return kind.lower()
    return getattr(getattr(layer, "activation", None), "__name__", "linear")


def ends_in_softmax(model):
    """Tell whether a model returns softmax scores and no logits."""
    layers = layers_of(model)
    return bool(layers) and activation_of(layers[-1]) == "softmax"


def packed(model):
    """Return a dense network in about a byte a weight, as JSON takes it; None for any other."""
    steps = []
    for layer in layers_of(model):
        kind, activation = type(layer).__name__, activation_of(layer)
        if kind in IGNORED:
            continue
        if kind == "Dense":
            steps.append(packed_dense(layer))
        elif kind not in ("ReLU", "Softmax", "Activation"):
            return None
        if activation not in ("linear", "relu", "softmax"):
            return None
        if activation != "linear":
            steps.append({"kind": activation})
    # A model with branches, say, is not what its list of layers is.
    probe = np.linspace(0, 1, 784, dtype=np.float32).reshape(28, 28)
    sizes = [(step["inputs"], step["units"]) for step in steps if step["kind"] == "dense"]
    if [probe.size, *(units for _, units in sizes)] != [*(inputs for inputs, _ in sizes), 10]:
        return None
    told, computed = logits_of(model, probe), forward(steps, probe)
    close = np.abs(told - computed).max() <= 0.05 * max(np.ptp(told), 1)
    return steps if close else None


def packed_dense(layer):
    """Return a dense layer: weights as whole numbers to 127, with a scale for each unit."""
    weights, *bias = (np.asarray(each, np.float32) for each in layer.get_weights())
    scale = np.maximum(np.abs(weights).max(axis=0), 1e-12) / 127
    whole = np.round(weights / scale).astype(np.int8)
    bias = bias[0] if bias else np.zeros(len(scale), np.float32)
    return {
        "kind": "dense",
        "inputs": len(weights),
        "units": len(scale),
        "weights": text_of(whole),
        "scale": text_of(scale.astype("<f4")),
        "bias": text_of(bias.astype("<f4")),
    }


def text_of(array):
    """Return an array's bytes as text."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def numbers_of(text, kind):
    """Return the array whose bytes a text holds."""
    return np.frombuffer(base64.b64decode(text), kind)


def forward(steps, image):
    """Return the logits of a packed network, computed as its page does."""
    values = np.asarray(image, np.float32).ravel()
    for step in steps:
        if step["kind"] == "dense":
            weights = numbers_of(step["weights"], "i1").reshape(step["inputs"], step["units"])
            scale, bias = (numbers_of(step[name], "<f4") for name in ("scale", "bias"))
            values = values @ weights.astype(np.float32) * scale + bias
        elif step["kind"] == "relu":
            values = np.maximum(values, 0)
        else:
            values = np.log(np.maximum(softmax(values), SMALLEST))
    return values
