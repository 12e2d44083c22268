"""What is worth trying on a target, by its facts."""

import pytest

from compress.config.compose import load_config
from compress.config.target import Rewrite
from compress.graph.session import CPU
from compress.tune.candidates import formats, operators, settings, together

ORT = {"runtime": {}}
OPENVINO = {"runtime": {"integer_products": ["QDQ"], "capabilities": ["BF16", "FP32", "INT8"]}}
CUDA = "CUDAExecutionProvider"


def config(*words):
    return load_config(["experiment=minilm", *words])


@pytest.mark.parametrize(
    ("asked", "facts", "provider", "names"),
    [
        ("int8_dynamic", ORT, CPU, ["int8_static"]),
        ("int8_static", ORT, CPU, ["int8_dynamic"]),
        ("int8_dynamic", OPENVINO, CPU, ["int8_static"]),
        ("int8_static", OPENVINO, CPU, []),  # it would multiply it in floats
        ("none", ORT, CPU, []),
        ("none", ORT, CUDA, ["fp16"]),
        ("fp16", ORT, CUDA, []),
    ],
)
def test_formats(asked, facts, provider, names):
    assert [each.name for each in formats(config(f"quantize={asked}"), facts, provider)] == names


def test_the_other_format_is_told_what_the_asked_for_is():
    [other] = formats(
        config("quantize=int8_dynamic", "quantize.smooth=0.7", "quantize.exclude=[x]"), ORT, CPU
    )
    assert (other.config.quantize.smooth, other.config.quantize.exclude) == (0.7, ["x"])
    assert other.config.quantize.min_coverage == 0.9  # its own
    assert not other.exact


def test_a_language_model_has_no_other_format():
    of_language = load_config(["experiment=smollm2", "target=openvino"])
    assert formats(of_language, OPENVINO, CPU) == []
    assert [each.name for each in settings(of_language, OPENVINO)] == ["precision=bf16"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ["precision=bf16", "fixed_shapes=true", "precision=bf16, fixed_shapes=true"]),
        (["target.fixed_shapes=true"], ["precision=bf16"]),
        (["target.precision=bf16"], ["fixed_shapes=true"]),
        (["target.precision=bf16", "target.fixed_shapes=true"], []),
    ],
)
def test_settings_of_openvino(words, names):
    found = settings(config("target=openvino", *words), OPENVINO)
    assert [each.name for each in found] == names
    assert [each.exact for each in found] == ["precision" not in name for name in names]


def test_settings_of_others():
    assert settings(config(), ORT) == []
    able = {"runtime": {"capabilities": ["FP32"]}}
    assert [each.name for each in settings(config("target=openvino"), able)] == ["fixed_shapes=true"]


def test_operators_and_all_of_several():
    asked = config("target.rewrites=[plain_norms]")
    found = operators(asked, ORT, {Rewrite.gelu_tanh})
    assert [each.name for each in found] == [
        "gelu_tanh",
        "plain_attention",
        "unsigned_weights",
        "signed_weights",
    ]
    assert [each.exact for each in found] == [False, True, True, True]
    of_openvino = [each.name for each in operators(asked, OPENVINO, ())]
    assert of_openvino == ["gelu_tanh", "plain_attention"]
    joint = together(found[1].config, [found[0], found[2]])
    assert joint.name == "plain_norms + plain_attention + gelu_tanh + unsigned_weights"
    assert joint.config.target.rewrites == [
        Rewrite.plain_norms, Rewrite.plain_attention, Rewrite.gelu_tanh, Rewrite.unsigned_weights,
    ]  # fmt: skip
    assert not joint.exact
    assert together(found[1].config, [found[2]]).exact
