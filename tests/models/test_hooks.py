"""Hooks are called within their context alone."""

import pytest
import torch
from torch import nn

from compress.models.hooks import hooked


def test_hooks_are_called_until_the_context_ends_or_fails():
    layers, called = [nn.Linear(2, 2), nn.Linear(2, 2)], []

    def run():
        called.clear()
        for layer in layers:
            layer(torch.zeros(1, 2))
        return list(called)

    def hooks():
        return (layer.register_forward_hook(lambda layer, *_: called.append(layer)) for layer in layers)

    with hooked(hooks()):
        assert run() == layers
    assert run() == []
    with pytest.raises(ZeroDivisionError), hooked(hooks()):
        raise ZeroDivisionError
    assert run() == []
