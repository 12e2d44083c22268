"""Language models of the LLaMA family: tokens -> logits of the next one, with a cache of keys and values."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import Tensor, nn

from compress.config.model import CausalLMModel
from compress.errors import DataError, ModelError, did_you_mean
from compress.models.causal_lm_card import CHECK_TEXT, card_facts
from compress.models.checkpoint import (
    Facts,
    check_weights,
    copy_companions,
    fetch_published,
    read_config,
    write_facts,
)
from compress.models.gguf import convert, gguf_of
from compress.models.layers import LANGUAGE_MODELS, Stack
from compress.models.padding import WIDTHS, cut_padding, padded
from compress.models.summary import Summary, write_summary

FAMILY = "causal_lm"
OUTPUT = "logits"
CONTEXT = 512  # tokens of a window, for calibration and evaluation
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


class CausalLM:
    """A language model with its tokenizer, as opened from a checkpoint folder."""

    output_name = OUTPUT

    def __init__(
        self, module: transformers.PreTrainedModel, tokenizer: Any, folder: Path, facts: Facts
    ) -> None:
        self.module = cast(nn.Module, module)
        self.config: Any = module.config
        self.tokenizer, self.folder, self.facts = tokenizer, folder, facts
        self.architecture = LANGUAGE_MODELS[self.config.model_type]

    @classmethod
    def load(cls, folder: Path, facts: Facts, attention: str = "sdpa") -> "CausalLM":
        """Open a folder in float32; raises ModelError for an unknown architecture or damaged weights."""
        described = read_config(folder)
        check_architecture(str(described.get("model_type", "none")))
        check_heads(described)
        check_weights(folder)
        module = _load_module(folder, attention)
        if (widths := described.get(WIDTHS)) is not None:
            cut_padding(Stack(module.model, LANGUAGE_MODELS[module.config.model_type]), widths)
        return cls(module, _load_tokenizer(folder, module.config.vocab_size), folder, facts)

    def save(self, folder: Path, facts: Facts) -> None:
        """Write a checkpoint that stock transformers loads; layers of different widths are padded."""
        module: Any = self.module
        widths = self.widths()["ffn"]
        ragged = len(set(widths)) > 1
        self.config.intermediate_size = max(widths)
        if ragged or hasattr(self.config, WIDTHS):  # that of a model it was cut from no longer holds
            setattr(self.config, WIDTHS, list(widths) if ragged else None)
        module.save_pretrained(folder, state_dict=padded(module, self.stack) if ragged else None)
        copy_companions(self.folder, folder)
        self.tokenizer.save_pretrained(folder)
        write_facts(facts, folder)
        ids = torch.tensor([self.tokenize(CHECK_TEXT)[:16]])
        summary = Summary(
            parameters=self.parameters(),
            macs=self.macs(),
            widths=self.widths(),
            layer_names=self.layer_names(facts.kept_layers),
            keeps_checkpoint=True,
            card=card_facts(self),
        )
        write_summary(summary, {n: t.numpy() for n, t in self.feeds(ids).items()}, folder)

    # -- structure

    @property
    def stack(self) -> Stack:
        return Stack(cast(Any, self.module).model, self.architecture)

    @property
    def kv_heads(self) -> int:
        return self.stack.kv_heads

    @property
    def head_dim(self) -> int:
        return self.stack.head_size

    def widths(self) -> dict[str, tuple[int, ...]]:
        """Kind -> width of each layer; heads are those of keys and values, which attention shares."""
        layers = self.stack.layers()
        return {
            "ffn": tuple(layer.ffn_width for layer in layers),
            "kv_heads": (self.kv_heads,) * len(layers),
            "vocabulary": (int(self.config.vocab_size),),
        }

    def layer_names(self, kept: Sequence[int] | None) -> dict[str, tuple[str, ...]]:
        """Kind -> name of each layer; `kept`: their numbers in the dense model, where some were dropped."""
        names = tuple(f"layer {number}" for number in kept or range(len(self.stack.layers())))
        return {"ffn": names, "kv_heads": names, "vocabulary": ("embedding",)}

    def linears(self) -> dict[str, nn.Linear]:
        """Name -> every product with weights, the head last. Its weight may be the embedding's."""
        return {name: m for name, m in self.module.named_modules() if isinstance(m, nn.Linear)}

    def parameters(self) -> int:
        """A head that is the embedding counts once."""
        return sum(p.numel() for p in self.module.parameters())

    def macs(self) -> int:
        """Multiply-accumulates of one token with an empty context."""
        return sum(linear.weight.numel() for linear in self.linears().values())

    # -- inputs

    def tokenize(self, text: str) -> list[int]:
        """Numbers of the tokens, without the marks of a beginning or an end."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    @property
    def cache_names(self) -> tuple[str, ...]:
        depth = range(int(self.config.num_hidden_layers))
        return tuple(f"past_key_values.{i}.{kind}" for i in depth for kind in ("key", "value"))

    @property
    def input_names(self) -> tuple[str, ...]:
        """All that an exported graph may take; one that fuses attention does without positions."""
        return ("input_ids", "attention_mask", "position_ids", *self.cache_names)

    def feeds(self, ids: Tensor, past: int = 0) -> dict[str, Tensor]:
        """For `ids` (batch, tokens) after `past` tokens whose keys and values are zeros."""
        batch, tokens = ids.shape
        shape = (batch, self.kv_heads, past, self.head_dim)
        return {
            "input_ids": ids.to(torch.int64),
            "attention_mask": torch.ones(batch, past + tokens, dtype=torch.int64),
            "position_ids": torch.arange(past, past + tokens).repeat(batch, 1),
            **{name: torch.zeros(shape) for name in self.cache_names},
        }

    def windows(self, texts: Sequence[str], tokens: int = CONTEXT) -> Tensor:
        """The texts in a row, cut to (windows, tokens); what is left over at the end is not used."""
        ids = [number for text in texts for number in self.tokenize(text + "\n")]
        count = len(ids) // tokens
        if count == 0:
            raise DataError("too little text", found=f"{len(ids)} tokens", allowed=f"at least {tokens}")
        return torch.tensor(ids[: count * tokens]).view(count, tokens)

    def batches(self, examples: Sequence[str], size: int) -> Iterator[dict[str, Tensor]]:
        """Windows of `CONTEXT` tokens, or of all that the model or the texts have."""
        ids = [number for text in examples for number in self.tokenize(text + "\n")]
        tokens = min(CONTEXT, len(ids), int(self.config.max_position_embeddings))
        windows = self.windows(examples, tokens)
        for start in range(0, len(windows), size):
            yield self.feeds(windows[start : start + size])

    def workload(self, texts: Sequence[str], batch: int, tokens: int, past: int = 0) -> dict[str, Tensor]:
        """Inputs of exactly (batch, tokens) made of real text, after `past` cached tokens.

        Raises DataError for more tokens than the model's context.
        """
        context = int(self.config.max_position_embeddings)
        if past + tokens > context:
            raise DataError(
                "the workload is longer than the model's context",
                found=f"{past + tokens} tokens",
                allowed=f"at most {context}",
            )
        ids = [number for text in texts for number in self.tokenize(text + "\n")]
        need = batch * tokens
        return self.feeds(torch.tensor((ids * -(-need // len(ids)))[:need]).view(batch, tokens), past)

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (batch, tokens, vocabulary) of inputs without a past."""
        found = self.module(input_ids=inputs["input_ids"], use_cache=False)
        return cast(Tensor, found.logits)

    def example(self) -> dict[str, Tensor]:
        return {"input_ids": torch.tensor([self.tokenize(CHECK_TEXT)[:8]])}


def import_causal_lm(config: CausalLMModel, out: Path) -> None:
    """Turn a published folder, or a GGUF file, into a checkpoint of ours; pickled weights are refused."""
    folder, facts = fetch_published(config, FAMILY)
    if (packed := gguf_of(folder)) is not None:
        unpacked = out / "unpacked"
        convert(packed, unpacked, LANGUAGE_MODELS)
        CausalLM.load(unpacked, facts).save(out, facts)
        for path in unpacked.iterdir():
            path.unlink()
        unpacked.rmdir()
    else:
        CausalLM.load(folder, facts).save(out, facts)


def check_architecture(model_type: str) -> None:
    if model_type not in LANGUAGE_MODELS:
        raise ModelError(
            "unknown architecture of a language model",
            found=model_type,
            allowed=did_you_mean(model_type, LANGUAGE_MODELS),
        )


def check_heads(config: Mapping[str, Any]) -> None:
    """Raise ModelError where query heads cannot share the heads of keys and values evenly."""
    heads = config.get("num_attention_heads")
    shared = config.get("num_key_value_heads") or heads
    if heads is None or not heads or not shared or heads % shared:
        raise ModelError(
            "the heads in config.json do not divide",
            found=f"{heads} attention heads, {shared} of keys and values",
            allowed="a multiple",
            next="fetch config.json again, of the revision of the weights",
        )


def _load_module(folder: Path, attention: str) -> transformers.PreTrainedModel:
    try:
        module, info = transformers.AutoModelForCausalLM.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
            attn_implementation=attention,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(
            f"the weights in {folder} do not fit their config.json",
            found=" ".join(str(error).split())[:300],
            allowed="tensors of the sizes that config.json names",
            next="fetch the model again, config.json and weights of one revision",
        ) from None
    wrong = {kind: sorted(info[f"{kind}_keys"]) for kind in ("missing", "unexpected")}
    if wrong["missing"] or wrong["unexpected"]:
        kind, names = next((kind, names) for kind, names in wrong.items() if names)
        raise ModelError(
            f"tensors are {kind} in {folder}",
            found=f"{len(names)}, e.g. {names[0]}",
            allowed="every tensor of the model that config.json describes, and no other",
            next="fetch the model again, config.json and all shards of the weights of one revision",
        )
    found: transformers.PreTrainedModel = module.eval()
    return found


def _load_tokenizer(folder: Path, vocabulary: int) -> Any:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"no usable tokenizer in {folder}",
            found=(str(error) or type(error).__name__).splitlines()[0],
            allowed="tokenizer.json with tokenizer_config.json",
        ) from None
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= vocabulary:
        raise ModelError(
            f"the tokenizer in {folder} has tokens that the model does not know",
            found=f"token {largest}",
            allowed=f"numbers below vocab_size, {vocabulary}",
            next="fetch model and tokenizer of one revision",
        )
    return tokenizer
