"""Whether a config.json describes a plain transformer of a known type: told before weights are read.

What is refused is recognised by what the file says, whatever its model_type is called: a type that is known
may be published with experts, and a new type of them comes out every week.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from compress.errors import ModelError, did_you_mean
from compress.models.architectures import LANGUAGE_MODELS
from compress.models.published_task import other_task
from compress.registry import declared, fitting, is_option

_MULTIMODAL = "a multimodal model"
_EXPERTS = re.compile(r"(moe_)?(n|num)_(local_|routed_)?experts|enable_moe_block")
_NO_ATTENTION = re.compile(r"(mamba|ssm|linear_(attn|num|key|value|conv)|conv_(L|kernel)|lru|hybrid)\w*")
_SENSES = re.compile(r"(text|llm|language|thinker|vision|image|video|audio|speech)(_encoder)?_config")
_LAYERS = re.compile(r"layer_types|layers_block_type|block_types")
_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
_SWITCHES = ("is_moe", "use_moe")  # of experts; some types write how many there would be though they are off
_QUANTIZED = ("quantization_config", "compression_config")
_SIZES = (
    *("max_position_embeddings", "vocab_size", "hidden_size", "dim", "intermediate_size", "hidden_dim"),
    *("num_hidden_layers", "n_layers", "num_attention_heads", "n_heads", "num_key_value_heads", "head_dim"),
)
_EPSILON = re.compile(r"(rms_|layer_)?norm_eps")
_UNEVEN = re.compile(r"hidden_size_per_layer_input|num_kv_shared_layers|global_head_dim|per_layer_config")


def check_kind(config: Mapping[str, Any], known: Collection[str], what: str) -> None:
    """Raise ModelError for a config.json of a model of several kinds of input, of experts, of layers without
    attention or unlike each other, of encoder and decoder, of attention or positions that stock layers of its
    type do not have, of quantized weights, or of a type that is not in `known`, and for sizes below 1.

    `what`: an indefinite article and what is looked for.
    """
    model_type = str(config.get("model_type", "none"))
    experts = all(config.get(switch, True) for switch in _SWITCHES)
    for kind, keys in (
        (_MULTIMODAL, _keys(config, _SENSES, 0)),
        ("an encoder with a decoder", _keys(config, re.compile("is_encoder_decoder"), 0)),
        ("a hybrid, with layers that are no attention", _hybrid(config)),
        ("a mixture of experts", _keys(config, _EXPERTS, 1) if experts else []),
        ("a transformer whose layers are not alike", _keys(config, _UNEVEN, 0)),
        ("a transformer that attends in chunks", _layers(config, {"chunked_attention"})),
        ("a transformer of other positions", _other_positions(config)),
    ):
        if keys:
            raise ModelError(
                f"{model_type} is {kind}",
                found=", ".join(keys[:3]) + " in config.json",
                allowed=f"{what} of plain transformer layers: {', '.join(known)}",
                next=_next(config, known) if kind == _MULTIMODAL else None,
            )
    check_known(config, known, what)
    check_unquantized(config)
    _check_sizes(config)


def check_known(config: Mapping[str, Any], known: Collection[str], what: str) -> None:
    """Raise ModelError for a config.json of a type that is not in `known`; `what` as of `check_kind`."""
    model_type = str(config.get("model_type", "none"))
    if model_type not in known:
        raise ModelError(
            f"unknown architecture of {what}",
            found=model_type,
            allowed=did_you_mean(model_type, known),
            next=other_task(config, what) or f"take {what} of one of these types",
        )


def check_causal(config: Mapping[str, Any]) -> None:
    """Raise ModelError for a language model that is none: tokens see those after them, to embed texts."""
    if config.get("use_bidirectional_attention") or config.get("is_causal") is False:
        names = [name for name in ("use_bidirectional_attention", "is_causal") if name in config]
        raise ModelError(
            f"this {config['model_type']} does not write text: its tokens see those after them",
            found=", ".join(f"{name}: {config[name]}" for name in names) + " in config.json",
            allowed="a language model whose tokens see those before them",
        )


def check_unquantized(config: Mapping[str, Any]) -> None:
    """Raise ModelError for a config.json of weights that others quantized, by whatever method."""
    for name in _QUANTIZED:
        if (given := config.get(name)) is not None:
            method = given.get("quant_method") if isinstance(given, dict) else None
            raise ModelError(
                "the model's weights are quantized already",
                found=f"{name} of {method or 'an unknown method'} in config.json",
                allowed="weights in float32, float16 or bfloat16",
                next="take the model that it was quantized from",
            )


def _check_sizes(config: Mapping[str, Any]) -> None:
    """Raise ModelError for what is there none of; transformers computes with it until something fails."""
    for name in _SIZES:
        value = config.get(name)
        if type(value) is int and value < 1:
            raise ModelError(
                "config.json gives a size that no model has",
                found=f"{name}: {value}",
                allowed="a whole number above 0",
                next="fetch config.json again, of the revision of the weights",
            )
    for name in filter(_EPSILON.fullmatch, config):  # padding would be 0 / 0
        if type(config[name]) in (int, float) and config[name] <= 0:
            raise ModelError(
                "config.json gives a norm that divides by nothing",
                found=f"{name}: {config[name]}",
                allowed="a number above 0",
                next="fetch config.json again, of the revision of the weights",
            )


def check_architecture(options: Iterable[object], config: Mapping[str, Any], task: str) -> None:
    """Raise ModelError for an option that does not know the architecture that a config.json names.

    One that nobody here knows is left to `check_kind`.
    """
    model_type = str(config.get("model_type", "none"))
    architecture = LANGUAGE_MODELS.get(model_type)
    for chosen in (declared(type(config)) for config in options if is_option(config)):
        if architecture is None or not chosen.needs or getattr(architecture, chosen.needs):
            continue
        known = [name for name, each in LANGUAGE_MODELS.items() if getattr(each, chosen.needs)]
        others = [name for name in fitting(chosen.group, task) if name != chosen.name]
        raise ModelError(
            f"{chosen.group}={chosen.name} does not know the architecture",
            found=model_type,
            allowed=", ".join(known),
            next=" or ".join(f"{chosen.group}={name}" for name in others),
        )


def _keys(config: Mapping[str, Any], pattern: re.Pattern[str], largest: int) -> list[str]:
    """Those that match and are set: to a number above `largest`, or to anything else."""
    return [
        name
        for name, value in config.items()
        if pattern.fullmatch(name) and (value > largest if type(value) is int else value)
    ]


def _hybrid(config: Mapping[str, Any]) -> list[str]:
    kinds = {str(kind) for name in filter(_LAYERS.fullmatch, config) for kind in _listed(config[name])}
    return _layers(config, kinds - _ATTENTION) or _keys(config, _NO_ATTENTION, 0)


def _layers(config: Mapping[str, Any], kinds: Collection[str]) -> list[str]:
    """Where layers of these kinds are told of."""
    names = filter(_LAYERS.fullmatch, config)
    told = ((str(kind), name) for name in names for kind in _listed(config[name]))
    return sorted({f"{kind} in {name}" for kind, name in told if kind in kinds})


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _other_positions(config: Mapping[str, Any]) -> list[str]:
    """BERT's of other releases: transformers 5 computes absolute ones, whatever the key says."""
    given = config.get("position_embedding_type")
    return [] if given in (None, "absolute") else [f"position_embedding_type {given}"]


def _next(config: Mapping[str, Any], known: Collection[str]) -> str | None:
    """Where the text model within is of a type that is known."""
    text = config.get("text_config")
    if not isinstance(text, dict) or text.get("model_type") not in known:
        return None
    return f"save the {text['model_type']} within it alone, by the lines in docs/language_models.md"
