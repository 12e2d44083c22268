"""An option that does not work on the kind of model is refused when the configuration is read."""

import re
import subprocess
import sys
from dataclasses import replace
from functools import cache

import pytest

from compress.config.compose import load_config
from compress.config.run import RunConfig
from compress.errors import ConfigError
from compress.registry import OPTIONS
from tests.config.options import make

EXPERIMENTS = ("minilm", "fashion_resnet", "smollm2")  # one a task
composed = cache(lambda experiment: load_config([f"experiment={experiment}"]))


def swapped(experiment: str, group: str, name: str) -> RunConfig:
    """The experiment with another option; raises ConfigError."""
    config, kind = composed(experiment), OPTIONS[group][name]
    changes = {group: make(kind)}
    evaluate = changes.get("evaluate", config.evaluate)
    if group == "data" and hasattr(evaluate, "primary"):  # other data, another metric
        changes["evaluate"] = replace(evaluate, primary=evaluate.metrics(changes["data"])[0])
    return replace(config, **changes)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("group", sorted(set(OPTIONS) - {"model"}))
def test_every_pair_composes_or_is_refused_with_options_that_compose(experiment, group):
    composing = set()
    for name in OPTIONS[group]:
        try:
            assert type(getattr(swapped(experiment, group, name), group)) is OPTIONS[group][name]
            composing.add(name)
        except ConfigError as error:
            lines = str(error).splitlines()
            assert lines[0] == f"{group}={name} does not work on this kind of model"
            assert lines[1].startswith("  found:   model=")
            advised = re.fullmatch(rf"  allowed: {group}=(.*)", lines[2]).group(1).split(",")
            assert advised
            for other in advised:
                swapped(experiment, group, other)
            does_something = [other for other in advised if other != "none"] or ["none"]
            assert lines[3] == f"  next:    for example {group}={does_something[0]}"
    assert composing


# Pairs that fail later where they are not refused: measured, each with a model of its task.
REFUSED = [
    ("minilm", "data=fashion_mnist", "data=text,documents"),
    ("minilm", "prune=channels", "prune=none,transformer,structured"),
    ("minilm", "prune=narrow_llm", "prune=none,transformer,structured"),
    ("minilm", "recover=finetune", "recover=none,distill"),
    ("minilm", "export=genai", "export=torch"),
    ("minilm", "quantize=int8_blocks", "quantize=none,int8_dynamic,int8_static,fp16,q4f16"),
    ("minilm", "quantize=int8_qat", "quantize=none,int8_dynamic,int8_static,fp16,q4f16"),
    ("minilm", "evaluate=image_classification", "evaluate=sentence_similarity"),
    ("minilm", "train=supervised", "train=none"),
    ("fashion_resnet", "data=wikipedia_lee", "data=images"),
    ("fashion_resnet", "export=genai", "export=torch"),
    ("fashion_resnet", "quantize=int8_smooth", "quantize=none,int8_dynamic,int8_static,int8_qat,fp16,q4f16"),
    ("smollm2", "prune=half_channels", "prune=none,transformer,language"),
    ("smollm2", "recover=distill", "recover=none,distill_logits"),
    (
        "smollm2",
        "quantize=int8_static",  # onnxruntime's preparation loses the weights that lie beside the graph
        "quantize=none,int8_dynamic,int8_blocks,int4_blocks,mixed_blocks,int8_smooth",
    ),
]


@pytest.mark.parametrize(("experiment", "override", "allowed"), REFUSED)
def test_what_does_not_work_is_refused(experiment, override, allowed):
    with pytest.raises(ConfigError, match=rf"does not work(.|\n)*allowed: {allowed}\n"):
        load_config([f"experiment={experiment}", override])


def test_all_wrong_options_are_named_at_once():
    with pytest.raises(ConfigError) as raised:
        load_config(["experiment=minilm", "model=smollm2"])
    assert str(raised.value).splitlines() == [
        "recover=distill evaluate=sentence_similarity do not work on this kind of model",
        "  found:   model=causal_lm, whose task is language_modeling",
        "  allowed: recover=none,distill_logits evaluate=language_modeling",
        "  next:    for example recover=distill_logits evaluate=language_modeling",
    ]


def test_it_is_refused_before_anything_heavy_is_imported():
    lines = [
        "import sys",
        "from compress.config.compose import load_config",
        "from compress.errors import ConfigError",
        "try: load_config(['experiment=minilm', 'quantize=int8_blocks'])",
        "except ConfigError: print(sorted({'torch', 'onnx', 'transformers'} & set(sys.modules)))",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
