"""The method's theory by numbers: the re-sampling lemma, and a subnetwork built as its proof builds one.

    python -m tools.theory docs

draws the two pictures of docs/theory.md and prints their numbers. The computations are NumPy's.
"""

import argparse
import dataclasses
import itertools
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from iterand_tf.experiments.figures import COLOURS, LINES, MARKERS, finished_png, new_axes
from iterand_tf.text_table import markdown_table

# Each layer's weights, of shape (outputs, inputs); ReLU stands between the layers.
Target = Sequence[np.ndarray]
CONFIDENCE = 0.9


def miss_bound(weights: int, draws: int, epsilon: float) -> float:
    """The lemma's bound on the probability that none of the draws is within epsilon of a target: `exp(-eps n R / 2)`.

    Args:
        weights: n, their number.
        draws: R, how often each is drawn.
        epsilon: largest distance to the target.

    Reference:
        Chijiwa et al., NeurIPS 2021, section 4.

    Example:

    >>> round(miss_bound(weights=10, draws=6, epsilon=0.1), 4)
    0.0498
    """
    return math.exp(-epsilon * weights * draws / 2)


def miss_frequency(
    weights: int, draws: int, epsilon: float, target: float | None, trials: int, generator: np.random.Generator
) -> float:
    """How often n weights, drawn R times each from U[-1, 1], miss a target by more than epsilon.

    Args:
        weights: n, their number.
        draws: R, how often each is drawn.
        epsilon: largest distance to the target.
        target: in [-1, 1]; None for any: how often there is a target in [-1, 1] that is missed.
        trials: how often to try.
        generator: of the draws.
    """
    drawn = generator.uniform(-1, 1, (trials, weights * draws))
    if target is not None:
        return float(np.mean(np.abs(drawn - target).min(axis=1) > epsilon))
    ordered = np.sort(drawn, axis=1)
    at_the_ends = np.maximum(ordered[:, 0] + 1, 1 - ordered[:, -1]) > epsilon
    between = np.diff(ordered, axis=1).max(axis=1, initial=0) > 2 * epsilon
    return float(np.mean(at_the_ends | between))


@dataclasses.dataclass(frozen=True)
class Subnetwork:
    """A random ReLU network, twice as deep as its target, and the mask of the weights that are used.

    Args:
        weights: of each layer, of shape (outputs, inputs), all drawn from U[-1, 1].
        masks: of the same shapes, 1 = kept.
    """

    weights: tuple[np.ndarray, ...]
    masks: tuple[np.ndarray, ...]

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Outputs for a batch of inputs."""
        return network([weights * mask for weights, mask in zip(self.weights, self.masks, strict=True)], inputs)


def network(layers: Target, inputs: np.ndarray) -> np.ndarray:
    """Outputs of a ReLU network without biases for a batch of inputs; its last layer is linear."""
    for layer in layers[:-1]:
        inputs = np.maximum(inputs @ layer.T, 0)
    return inputs @ layers[-1].T


def random_target(widths: Sequence[int], generator: np.random.Generator) -> list[np.ndarray]:
    """A network to approximate: each layer's Frobenius norm is 1.

    Args:
        widths: of the input and of each layer.
        generator: of the weights.
    """
    layers = [generator.normal(size=(outputs, inputs)) for inputs, outputs in itertools.pairwise(widths)]
    return [layer / np.linalg.norm(layer) for layer in layers]


def choose_subnetwork(target: Target, block: int, draws: int, generator: np.random.Generator) -> Subnetwork:
    """Draws a random network, re-draws its weights and chooses the subnetwork that comes near to a target.

    Each target layer gets two random ones. A hidden neuron between them is fed by one input alone: `block` neurons
    stand for each input, and in the first layer, whose inputs have both signs, `block` more for its negative part. The
    weight into such a neuron keeps the one of its draws that is nearest to 1, or to -1. Each output then uses, of each
    block, the one neuron whose product of weights is nearest to the target's weight, the weight out of it being the
    best of its own draws.

    Args:
        target: the layers to approximate.
        block: neurons in a block.
        draws: R, how often each weight is drawn.
        generator: of the draws.
    """
    weights: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    for number, layer in enumerate(target):
        signs = np.array([1.0, -1.0]) if number == 0 else np.array([1.0])
        for weight, mask in _two_layers(layer, signs, block, draws, generator):
            weights.append(weight)
            masks.append(mask)
    return Subnetwork(tuple(weights), tuple(masks))


def _two_layers(layer, signs, block, draws, generator):
    outputs, inputs = layer.shape
    drawn = generator.uniform(-1, 1, (inputs, len(signs), block, draws))
    nearest = np.abs(drawn - signs[:, None, None]).argmin(axis=-1, keepdims=True)
    # ReLU lets the input's part of a sign through where the weight has that sign.
    into = np.take_along_axis(drawn, nearest, axis=-1)[..., 0]
    drawn = generator.uniform(-1, 1, (outputs, inputs, len(signs), block, draws))
    errors = np.abs(into[..., None] * drawn - layer[:, :, None, None, None])
    nearest = errors.argmin(axis=-1, keepdims=True)
    out = np.take_along_axis(drawn, nearest, axis=-1)[..., 0]
    errors = np.take_along_axis(errors, nearest, axis=-1)[..., 0]
    errors = np.where(into * signs[:, None] > 0, errors, np.inf)
    best = errors.argmin(axis=-1, keepdims=True)
    used = np.zeros_like(out)
    np.put_along_axis(used, best, 1, axis=-1)
    hidden = inputs * len(signs) * block
    # What is pruned keeps a value of its own, which nobody sees.
    first = generator.uniform(-1, 1, (hidden, inputs))
    own_input = np.repeat(np.arange(inputs), len(signs) * block)
    first[np.arange(hidden), own_input] = into.reshape(hidden)
    first_mask = np.zeros_like(first)
    first_mask[np.arange(hidden), own_input] = used.any(axis=0).reshape(hidden)
    return (first, first_mask), (out.reshape(outputs, hidden), used.reshape(outputs, hidden))


def largest_error(target: Target, subnetwork: Subnetwork, generator: np.random.Generator, points: int = 1000) -> float:
    """The largest distance between both networks' outputs, over random inputs of norm 1.

    Both are positively homogeneous: inside the unit ball the distance is smaller.
    """
    inputs = generator.normal(size=(points, target[0].shape[1]))
    inputs /= np.linalg.norm(inputs, axis=1, keepdims=True)
    return float(np.linalg.norm(network(target, inputs) - subnetwork(inputs), axis=1).max())


def block_of_the_proof(widths: Sequence[int], epsilon: float, draws: int) -> int:
    """Neurons in a block that suffice by the proof in docs/theory.md, with probability 0.9.

    Args:
        widths: of the target's input and of each of its layers.
        epsilon: the largest error that the whole network may have, at most 1.
        draws: R, how often each weight is drawn.

    Example:

    >>> block_of_the_proof((3, 3, 2), epsilon=0.2, draws=1), block_of_the_proof((3, 3, 2), epsilon=0.2, draws=100)
    (315683, 45)
    """
    pairs = [inputs * outputs for inputs, outputs in itertools.pairwise(widths)]
    error_of_a_weight = epsilon / (2 * len(pairs) * math.sqrt(max(pairs)))
    # Both of a neuron's weights must come within half of that, see the lemma.
    both = (1 - (1 - error_of_a_weight / 4) ** draws) ** 2
    conditions = 2 * pairs[0] + sum(pairs[1:])
    return math.ceil(math.log(conditions / (1 - CONFIDENCE)) / -math.log1p(-both))


def block_needed(target: Target, epsilon: float, draws: int, generator: np.random.Generator, tries: int = 20) -> int:
    """The smallest block with which nine of ten subnetworks come within epsilon of the target, found by trying.

    Args:
        target: the layers to approximate.
        epsilon: the largest error that the whole network may have.
        draws: R, how often each weight is drawn.
        generator: of the draws.
        tries: random networks for each size of a block.
    """

    def suffices(block):
        found = [
            largest_error(target, choose_subnetwork(target, block, draws, generator), generator) for _ in range(tries)
        ]
        return np.mean(np.array(found) <= epsilon) >= CONFIDENCE

    high = 1
    while not suffices(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


LEMMA_EPSILON, LEMMA_DRAWS, LEMMA_TRIALS = 0.1, 4, 20_000
WIDTHS = (3, 3, 2)
EPSILONS = (0.2, 0.1, 0.05)
DRAWS = (1, 2, 4, 8, 16, 32, 64, 128)


def draw_lemma(generator: np.random.Generator) -> tuple[bytes, list[tuple[str, ...]]]:
    """The picture of the lemma and its numbers."""
    (axes,) = new_axes(f"draws in all: n weights, {LEMMA_DRAWS} times each (number)", "probability that all draws miss")
    counts = (1, 2, 4, 6, 8, 12, 16, 24, 32)
    cases: dict[str, float | None] = {"target 0": 0.0, "target 1, at the edge": 1.0, "some target in [-1, 1]": None}
    rows: list[tuple[str, ...]] = [("n", "R", "bound", *cases)]
    rows += [(str(count), str(LEMMA_DRAWS), f"{miss_bound(count, LEMMA_DRAWS, LEMMA_EPSILON):.4f}") for count in counts]
    totals = [count * LEMMA_DRAWS for count in counts]
    axes.plot(
        totals,
        [miss_bound(count, LEMMA_DRAWS, LEMMA_EPSILON) for count in counts],
        LINES[0],
        color="black",
        label="bound exp(-ε n R / 2)",
    )
    for number, (label, target) in enumerate(cases.items()):
        found = [miss_frequency(count, LEMMA_DRAWS, LEMMA_EPSILON, target, LEMMA_TRIALS, generator) for count in counts]
        rows[1:] = [(*row, f"{frequency:.4f}") for row, frequency in zip(rows[1:], found, strict=True)]
        # A logarithmic axis has no place for a frequency of 0.
        drawn = [frequency or np.nan for frequency in found]
        axes.plot(totals, drawn, MARKERS[number], color=COLOURS[number], label=label, markersize=5)
    axes.set_yscale("log")
    return finished_png(f"The re-sampling lemma, ε = {LEMMA_EPSILON}", [axes]), rows


def draw_widths(generator: np.random.Generator) -> tuple[bytes, list[tuple[str, ...]]]:
    """The picture of the width that an error needs, and its numbers."""
    (axes,) = new_axes("draws of each weight, R (number)", "width: neurons of a block (number)")
    target = random_target(WIDTHS, generator)
    rows: list[tuple[str, ...]] = [("ε", "width", *(f"R = {draws}" for draws in DRAWS))]
    for number, epsilon in enumerate(EPSILONS):
        needed = [block_needed(target, epsilon, draws, generator) for draws in DRAWS]
        proved = [block_of_the_proof(WIDTHS, epsilon, draws) for draws in DRAWS]
        rows.append((f"{epsilon}", "needed, measured", *map(str, needed)))
        rows.append((f"{epsilon}", "enough by the proof", *map(str, proved)))
        colour, needed_line = COLOURS[number], f"{MARKERS[number]}{LINES[0]}"
        axes.plot(DRAWS, needed, needed_line, label=f"needed for error {epsilon}", color=colour, markersize=4.5)
        axes.plot(DRAWS, proved, LINES[1], label=f"enough by the proof, {epsilon}", color=colour)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    widths = "-".join(map(str, WIDTHS))
    return finished_png(f"Width that suffices to approximate a {widths} network", [axes]), rows


def main() -> None:
    """Draws both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path, help="where to write the pictures")
    directory = parser.parse_args().directory
    generator = np.random.default_rng(0)
    for name, draw in (("theory_lemma", draw_lemma), ("theory_width", draw_widths)):
        png, rows = draw(generator)
        (directory / f"{name}.png").write_bytes(png)
        print(f"{name}\n\n{markdown_table(rows)}\n")


if __name__ == "__main__":
    main()
