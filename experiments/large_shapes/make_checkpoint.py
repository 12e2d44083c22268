"""A language model of a published shape with random weights, shard by shard: `make_checkpoint.py SHAPE OUT`.

Speed and memory do not depend on what the weights say; what rounding does to them depends on their spread:

- singular values: a matrix is Gaussian, plus 64 directions whose sizes fall as k^-0.7 from three times the
  largest of a Gaussian matrix;
- input channels: scaled by a log-normal factor (sigma 0.3);
- outliers: one channel of 256 has a norm weight 8 times as large, as trained models have huge activations.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

# Of Qwen2.5's config.json: layers, hidden, feed-forward, heads, heads of keys and values, tokens, tied.
SHAPES = {
    "0.5b": (24, 896, 4864, 14, 2, 151_936, True),
    "1.5b": (28, 1536, 8960, 12, 2, 151_936, True),
    "7b": (28, 3584, 18944, 28, 4, 152_064, False),
}
SHARD_BYTES = 1_000_000_000  # at least; a layer is never cut
RANK, LARGEST, DECAY = 64, 3.0, 0.7


def config_of(shape: str, layers: int | None) -> dict[str, Any]:
    count, hidden, ffn, heads, shared, tokens, tied = SHAPES[shape]
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "num_hidden_layers": layers or count,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "vocab_size": tokens,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 32768,
        "rope_theta": 1_000_000.0,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        "eos_token_id": 0,
    }


def matrix(rows: int, columns: int, size: float) -> Tensor:
    """Whose outputs have the mean square `size`^2 for inputs of mean square 1."""
    width = columns**-0.5
    found = torch.randn(rows, columns) * width
    strengths = LARGEST * (1 + (rows / columns) ** 0.5) * torch.arange(1, RANK + 1) ** -DECAY
    left, right = torch.randn(rows, RANK) * rows**-0.5, torch.randn(RANK, columns) * width
    found += (left * strengths) @ right
    found *= torch.exp(0.3 * torch.randn(columns))
    return (found * size).bfloat16()


def norm(width: int) -> Tensor:
    found = 1 + 0.1 * torch.randn(width)
    found[torch.randperm(width)[: max(1, width // 256)]] *= 8
    return found.bfloat16()


def layer(number: int, config: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    shared = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    within = (2 * config["num_hidden_layers"]) ** -0.5  # the residual stream grows as that of trained models
    for name, rows in (("q", hidden), ("k", shared), ("v", shared)):
        yield f"self_attn.{name}_proj.weight", matrix(rows, hidden, 1.0)
        yield f"self_attn.{name}_proj.bias", (0.1 * torch.randn(rows)).bfloat16()
    yield "self_attn.o_proj.weight", matrix(hidden, hidden, within)
    yield "mlp.gate_proj.weight", matrix(ffn, hidden, 1.0)
    yield "mlp.up_proj.weight", matrix(ffn, hidden, 1.0)
    yield "mlp.down_proj.weight", matrix(hidden, ffn, within)
    yield "input_layernorm.weight", norm(hidden)
    yield "post_attention_layernorm.weight", norm(hidden)


def pieces(config: dict[str, Any]) -> Iterator[dict[str, Tensor]]:
    """The weights, a layer or a table of tokens at a time."""
    tokens, hidden = config["vocab_size"], config["hidden_size"]
    yield {"model.embed_tokens.weight": (0.02 * torch.randn(tokens, hidden)).bfloat16()}
    for number in range(config["num_hidden_layers"]):
        yield {f"model.layers.{number}.{name}": each for name, each in layer(number, config)}
    yield {"model.norm.weight": norm(hidden)}
    if not config["tie_word_embeddings"]:
        yield {"lm_head.weight": matrix(tokens, hidden, 2.0)}


def shards(parts: Iterable[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """Of at least SHARD_BYTES, but for the last."""
    held: dict[str, Tensor] = {}
    for part in parts:
        held |= part
        if sum(each.nbytes for each in held.values()) >= SHARD_BYTES:
            yield held
            held = {}
    if held:
        yield held


def write_weights(config: dict[str, Any], out: Path) -> None:
    places: dict[str, str] = {}
    total = 0
    for number, shard in enumerate(shards(pieces(config)), 1):
        name = f"model-{number:05d}.safetensors"
        save_file(shard, out / name, {"format": "pt"})
        places |= dict.fromkeys(shard, name)
        total += sum(each.nbytes for each in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def write_tokenizer(texts: list[str], out: Path) -> None:
    """A small byte-level BPE of these texts; rows of the embedding that no token has stay unused."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=8000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": special[0]}
    (out / "tokenizer_config.json").write_text(json.dumps(settings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, help="fewer than the shape has")
    args = parser.parse_args()
    torch.manual_seed(0)
    args.out.mkdir(parents=True)
    config = config_of(args.shape, args.layers)
    (args.out / "config.json").write_text(json.dumps(config, indent=1))
    docs = Path(__file__).parents[2] / "docs"
    write_tokenizer([path.read_text("utf-8") for path in sorted(docs.glob("*.md"))], args.out)
    write_weights(config, args.out)


if __name__ == "__main__":
    main()
