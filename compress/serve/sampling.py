"""One token out of logits."""

import numpy as np

from compress.tasks.language_modeling.generation import likeliest


def choose(logits: np.ndarray, temperature: float, top_p: float, random: np.random.Generator) -> int:
    """A token by its logits (vocabulary,): at temperature 0 the first most likely one, else one of the
    nucleus with its probability there.

    Nucleus: the fewest tokens whose probabilities sum to `top_p` (Holtzman et al., The curious case of
    neural text degeneration, ICLR 2020).
    """
    if temperature == 0.0:
        return likeliest(logits)
    tokens, weights = nucleus(logits.astype(np.float64) / temperature, top_p)
    sums = np.cumsum(weights)
    return int(tokens[np.searchsorted(sums, random.random() * sums[-1], side="right")])


def nucleus(logits: np.ndarray, top_p: float) -> tuple[np.ndarray, np.ndarray]:
    """The tokens to draw from, and weights (tokens,) that have the ratios of their probabilities."""
    weights = np.exp(logits - logits.max())
    if top_p >= 1.0:
        return np.arange(len(weights)), weights
    whole = weights.sum()
    # Those below this sum to less than 1 - top_p, so that the nucleus needs none: few are left to be sorted.
    likely = np.flatnonzero(weights >= (1.0 - top_p) * whole / len(weights))
    order = likely[np.argsort(-weights[likely], kind="stable")]
    count = int(np.searchsorted(np.cumsum(weights[order]), top_p * whole)) + 1
    return order[:count], weights[order[:count]]
