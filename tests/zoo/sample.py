"""Which checkpoints of a zoo `make test` reads; `make test-slow` reads the others."""

from collections.abc import Iterable

import pytest


def every_second(names: Iterable[str]) -> list:
    return [
        pytest.param(name, marks=[pytest.mark.slow] if number % 2 else [])
        for number, name in enumerate(names)
    ]
