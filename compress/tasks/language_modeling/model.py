"""Language models of the LLaMA family: tokens -> logits of the next one, with a cache of keys and values."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from compress.errors import ModelError
from compress.models.architectures import LANGUAGE_MODELS
from compress.models.checkpoint import (
    Facts,
    check_weights,
    copy_companions,
    read_config,
    read_facts_of,
    write_facts,
)
from compress.models.compat import write_for_both
from compress.models.kind import check_causal, check_kind
from compress.models.layers import Stack
from compress.models.loading import open_stock
from compress.models.padding import cut_padding, save_padded
from compress.models.stored import save_as_stored, stored_type
from compress.models.summary import Summary, write_summary
from compress.models.tokenizer import Tokenizer, leave_length_alone
from compress.tasks.base import Opened, Traced, tensors
from compress.tasks.language_modeling.cached import cached
from compress.tasks.language_modeling.card import CHECK_TEXT, card_facts
from compress.tasks.language_modeling.processor import CONTEXT, LanguageProcessor, open_processor

OUTPUT = "logits"
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


class CausalLM(Opened):
    """A language model with its tokenizer, as opened from a checkpoint folder."""

    task = "language_modeling"
    output_names = (OUTPUT,)

    def __init__(
        self, module: transformers.PreTrainedModel, tokenizer: Any, folder: Path, facts: Facts
    ) -> None:
        self.module = cast(nn.Module, module)
        self.config: Any = module.config
        self.tokenizer, self.folder, self.facts = tokenizer, folder, facts
        self._read_tokenizer: Tokenizer | None = None
        self.architecture = LANGUAGE_MODELS[self.config.model_type]
        self.stored = any(each.dtype != torch.float32 for each in self.module.parameters())

    @classmethod
    def load(cls, folder: Path, facts: Facts, attention: str = "sdpa", stored: bool = False) -> "CausalLM":
        """`stored`: weights stay in the checkpoint's precision, mapped from its files, to be read only; they
        are float32 when they compute."""
        described = read_config(folder)
        check_described(described)
        check_weights(folder)
        dtype = stored_type(folder) if stored else torch.float32
        module = open_stock(transformers.AutoModelForCausalLM, folder, attention, dtype=dtype)
        cut_padding(Stack(module.model, LANGUAGE_MODELS[module.config.model_type]), vars(module.config))
        return cls(module, _load_tokenizer(folder, module.config.vocab_size), folder, facts)

    @classmethod
    def open_stored(cls, checkpoint: Path) -> "CausalLM":
        """Open a checkpoint of ours with its weights as they are stored, which takes no memory for them."""
        return cls.load(checkpoint, read_facts_of(cls.task, checkpoint), stored=True)

    def save(self, folder: Path, facts: Facts) -> None:
        """Write a checkpoint that stock transformers loads; layers of different widths are padded."""
        if self.stored:  # as they are: written anew they would be held in memory
            save_as_stored(self.module, self.folder, folder)
        else:
            save_padded(self.module, self.stack, folder)
        copy_companions(self.folder, folder)
        self.tokenizer.save_pretrained(folder)
        leave_length_alone(folder)
        write_for_both(folder)
        write_facts(facts, folder)
        processor = open_processor(folder)
        ids = np.array([processor.tokenizer.plain(CHECK_TEXT)[:16]], np.int64)
        summary = Summary(
            parameters=self.parameters(),
            macs=self.macs(),
            widths=self.widths(),
            layer_names=self.layer_names(facts.kept_layers),
            keeps_checkpoint=True,
            card=card_facts(processor),
        )
        write_summary(summary, processor.feeds(ids), folder)

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

    @property
    def processor(self) -> LanguageProcessor:
        """For the tokens and heads that are left by now."""
        if self._read_tokenizer is None or self._read_tokenizer.folder != self.folder:
            self._read_tokenizer = Tokenizer(self.folder)
        return LanguageProcessor(self._read_tokenizer, self.config.to_dict())

    def tokenize(self, text: str) -> list[int]:
        """Numbers of the tokens, without the marks of a beginning or an end."""
        return self.processor.tokenizer.plain(text)

    def windows(self, texts: Sequence[str], tokens: int = CONTEXT) -> Tensor:
        """The texts in a row, cut to (windows, tokens); what is left over at the end is not used."""
        return torch.from_numpy(self.processor.windows(texts, tokens))

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (batch, tokens, vocabulary) of inputs without a past."""
        found = self.module(input_ids=inputs["input_ids"], use_cache=False)
        return cast(Tensor, found.logits)

    def traced(self, examples: Sequence[str]) -> Traced:
        """Batch, tokens and cached tokens stay open."""
        feeds = tensors(self.processor.feeds(np.ones((2, 3), np.int64), past=4))
        names = tuple(feeds)
        ids, mask, positions, *caches = names
        batch, tokens, past = "batch_size", "sequence_length", "past_sequence_length"
        pairs = list(zip(caches[::2], caches[1::2], strict=True))
        return Traced(
            module=cached(self.module),
            inputs={
                **{name: feeds[name] for name in (ids, mask, positions)},
                "past": [(feeds[key], feeds[value]) for key, value in pairs],
            },
            axes={  # in the order of the inputs, or the exporter mixes up their names
                ids: {0: batch, 1: tokens},
                mask: {0: batch, 1: "total_sequence_length"},
                positions: {0: batch, 1: tokens},
                "past": [({0: batch, 2: past}, {0: batch, 2: past}) for _ in pairs],
            },
            input_names=names,
            output_names=(OUTPUT, *(name.replace("past_key_values", "present") for name in caches)),
            cached=True,
        )

    def stock_view(self, inputs: Mapping[str, Tensor]) -> tuple[str, str, Tensor]:
        return "AutoModelForCausalLM", "logits", self.run(inputs)

    def example(self) -> dict[str, Tensor]:
        return {"input_ids": torch.tensor([self.tokenize(CHECK_TEXT)[:8]])}


open_model = CausalLM.open


def check_described(described: Mapping[str, Any]) -> None:
    """Raise ModelError for a config.json that is no language model's."""
    check_kind(described, LANGUAGE_MODELS, "a language model")
    check_causal(described)
    check_heads(described)


def check_heads(config: Mapping[str, Any]) -> None:
    """Raise ModelError where query heads cannot share the heads of keys and values evenly."""
    heads = config.get("num_attention_heads")
    shared = config.get("num_key_value_heads") or heads
    whole = isinstance(heads, int) and isinstance(shared, int)
    if not whole or not heads or not shared or heads % shared:
        raise ModelError(
            "the heads in config.json do not divide",
            found=f"{heads} attention heads, {shared} of keys and values",
            allowed="a multiple",
            next="fetch config.json again, of the revision of the weights",
        )


def _load_tokenizer(folder: Path, vocabulary: int) -> Any:
    """The tokenizer as transformers knows it for the architecture, or as tokenizer.json alone describes it:
    some classes refuse settings of older releases (`"add_prefix_space": null`), and that of Qwen 2 adds an
    end of text for which the model has no row.
    """
    for source in (transformers.AutoTokenizer, transformers.PreTrainedTokenizerFast):
        try:
            tokenizer: Any = source.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # the library tokenizers raises nothing narrower
            failure = ModelError(
                f"no usable tokenizer in {folder}",
                found=(str(error) or type(error).__name__).splitlines()[0],
                allowed="tokenizer.json with tokenizer_config.json",
            )
            continue
        if tokenizer.split_special_tokens:  # a setting of the session, which no tokenizer.json can hold
            raise ModelError(
                f"the tokenizer in {folder} takes its own marks apart",
                found="split_special_tokens in tokenizer_config.json",
                allowed="false",
                next="set it to false, where texts that hold marks are yours",
            )
        if isinstance(tokenizer.chat_template, dict) and "default" not in tokenizer.chat_template:
            raise ModelError(
                f"the tokenizer in {folder} has several templates of chats, none of them for plain chats",
                found=", ".join(tokenizer.chat_template),
                allowed="one, or one that is called default",
                next="take the others out of additional_chat_templates, or of tokenizer_config.json",
            )
        largest = max(tokenizer.get_vocab().values(), default=0)
        if largest < vocabulary:
            given = tokenizer.init_kwargs
            tokenizer.init_kwargs = {key: value for key, value in given.items() if value is not None}
            return tokenizer
        failure = ModelError(
            f"the tokenizer in {folder} has tokens that the model does not know",
            found=f"token {largest}",
            allowed=f"numbers below vocab_size, {vocabulary}",
            next="fetch model and tokenizer of one revision",
        )
    raise failure
