"""What an export asks of a model, its decoder and its labels before anything is written."""

import numpy as np
import tensorflow as tf

from export.network import as_served, inference_arguments
from iterand_tf import checks, models
from iterand_tf.cloning import is_graph
from iterand_tf.data.augmentation import whole_of_encoded
from iterand_tf.errors import ExportError
from iterand_tf.layers.walk import all_layers


def check_built(model, sample):
    """Raises ValueError unless it is known what the model takes."""
    if is_graph(model) and not model.built:
        raise ValueError(f"call the model on an input, or give it a keras.Input, first. Received: model={model.name}")
    if not is_graph(model) and (not model.built or sample is None or not len(sample)):
        raise ValueError(
            f"a subclassed model must be called once before, and needs a sample. Received: model={model.name}"
        )


def decoder(model, inputs, decode):
    """The function of an encoded image to an input: `decode`, or for networks of `build` the whole image; or None.

    Raises ValueError if it does not give inputs of the model. Its own errors come here, too: inside of tf.map_fn one
    would leave TensorFlow's scope of variables changed.
    """
    if decode is None and models.from_pixels_to_logits(model):
        decode = _whole_image(*inputs.values())
    if decode is None:
        return None
    if len(inputs) > 1:
        raise checks.ArgumentError("decode", "left out for a model of several inputs", decode)
    traced = tf.function(decode, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    image = traced.get_concrete_function().structured_outputs
    (spec,) = inputs.values()
    if image.dtype != spec.dtype or not image.shape.is_compatible_with(spec.shape[1:]):
        shape = tuple(spec.shape[1:])
        wanted = f"a function of an encoded image that gives a {spec.dtype.name} tensor of shape {shape}"
        raise checks.ArgumentError("decode", wanted, image)
    return decode


def _whole_image(spec):
    """Decodes an image to an input of 1 or 3 channels; None if inputs are not such images of known size."""
    height, width, channels = spec.shape[1:] if len(spec.shape) == 4 else (None, None, None)
    if height is None or width is None or channels not in (1, 3):
        return None
    return lambda encoded: whole_of_encoded(encoded, (height, width), channels)


def check_labels(labels, outputs):
    """The class names as text, one for each value of the single output, or none."""
    if labels is None:
        return []
    if isinstance(labels, str | bytes | dict):
        raise checks.ArgumentError("labels", "a sequence of class names", labels)
    labels = [label.decode() if isinstance(label, bytes) else str(label) for label in labels]
    if any("\n" in label for label in labels):
        raise checks.ArgumentError("labels", "names of one line each", labels)
    if labels and len(outputs) > 1:
        raise checks.ArgumentError("labels", "left out for a model of several outputs", labels)
    num_outputs = next(iter(outputs.values())).shape[-1]
    if labels and len(labels) != num_outputs:
        raise checks.ArgumentError("labels", f"{num_outputs} class names, one for each output", labels)
    return labels


def outputs_of(model, interface, inputs):
    """The model's answers by name, if they are such as can be served."""
    stateful = [layer.name for layer in all_layers(model) if getattr(layer, "stateful", False)]
    if stateful:
        raise ValueError(
            "export takes no stateful layers, whose answers depend on the calls before; build them with "
            f"stateful=False. Received: layers={stateful}"
        )
    try:
        outputs = model(interface.structured(inputs), **inference_arguments(model))
    except tf.errors.UnimplementedError as error:
        if any(getattr(layer, "data_format", None) == "channels_first" for layer in all_layers(model)):
            raise ExportError(
                f"{model.name} has layers with data_format='channels_first', which TensorFlow runs on a CPU only with "
                "oneDNN; set TF_ENABLE_ONEDNN_OPTS=1 before TensorFlow is imported, or build the model channels last."
            ) from error
        raise
    named = {name: np.asarray(as_served(output)) for name, output in interface.named(outputs).items()}
    if not all(np.isfinite(output).all() for output in named.values()):
        raise ExportError("the trained model's outputs are not finite; train it anew, with a lower learning rate.")
    return named


def check_logits(outputs):
    """Raises ValueError if the outputs can hardly be logits of a softmax."""
    if outputs.shape[-1] == 1:
        raise ValueError("head='softmax' needs two outputs or more; a single logit has the head 'sigmoid'.")
    if outputs.min() >= 0 and np.allclose(outputs.sum(axis=-1), 1, atol=1e-3):
        raise ValueError(
            "with head='softmax' the model must end in logits, of which the export makes probabilities; leave out its "
            f"softmax, or head. Received: outputs={outputs[0]}"
        )
