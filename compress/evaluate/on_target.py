"""Quality of what a target computes."""

from functools import partial
from typing import Any

from compress import evaluate as here
from compress.config.evaluate import EvaluateConfig
from compress.config.target import TargetConfig
from compress.targets import open_target
from compress.targets.outputs import outputs


def evaluate(config: EvaluateConfig, target: TargetConfig, *inputs: Any, **named: Any) -> None:
    """Score what the graphs in `graph` give on the target, and compare it with what the dense ones give here.

    All else is as in `compress.evaluate.evaluate`, which gets the rest. Raises BenchmarkError where the
    target cannot run them.
    """
    score = partial(here.evaluate, config, there=partial(outputs, open_target(target)))
    score(*inputs, **named)
