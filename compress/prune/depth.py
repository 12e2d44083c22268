"""Fewer layers: they leave one by one, that first whose absence changes the outputs least."""

import logging

from compress.models.layers import Stack
from compress.tasks.calibration import Distances

log = logging.getLogger(__name__)


def drop_layers(stack: Stack, target: int, protected: tuple[int, int], distances: Distances) -> list[int]:
    """Remove layers greedily until `target` are left; returns their numbers in the model as given, in the
    order they went. The first and the last `protected` stay."""
    numbers = list(range(len(stack.blocks)))
    dropped: list[int] = []
    while len(numbers) > target:
        far = distances(range(protected[0], len(numbers) - protected[1]))
        nearest = min(far, key=far.__getitem__)
        log.info("dropped layer %d: distance to dense %.4f", numbers[nearest], far[nearest])
        stack.drop_layer(nearest)
        dropped.append(numbers.pop(nearest))
    return dropped
