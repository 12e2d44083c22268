"""Tiny sentence encoders as they are published, one feature each: `CASES` are read, `REFUSED` are not.

Of random weights, so that what is read otherwise gives other embeddings.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from compress.tasks.reading import TEXTS

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
OLD, NEW = "sentence_transformers.models.", "sentence_transformers.sentence_transformer.modules."
MEAN = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 66,
    "initializer_range": 0.25,
    "pad_token_id": 0,
    "type_vocab_size": 2,
}
SIZES_OF: dict[str, dict[str, Any]] = {
    **{kind: {"type_vocab_size": 1} for kind in ("roberta", "xlm-roberta", "camembert")},
    "distilbert": {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2},
    "modernbert": {"num_hidden_layers": 4, "local_attention": 6},
    "eurobert": {"num_key_value_heads": 2},
    **{kind: {"num_key_value_heads": 1, "head_dim": 8} for kind in ("llama", "mistral", "qwen2", "qwen3")},
    "gemma3_text": {
        "num_hidden_layers": 4,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "sliding_window": 9,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
    },
}


# -- the model and its tokenizer


def word_pieces(folder: Path, **settings: Any) -> int:
    """A BERT tokenizer of letters and a few words; its size."""
    words = ["the", "The", "cat", "mat", "dog", "letter", "straße", "strasse", "naive", "café", "日本"]
    pieces = dict.fromkeys([*MARKS, *words, *letters(), *(f"##{letter}" for letter in letters())])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    made: Any = transformers.BertTokenizer(
        vocab=vocabulary, **{"do_lower_case": False, "model_max_length": 64, **settings}
    )
    made.save_pretrained(folder)
    return len(vocabulary)


def words(folder: Path, normalizer: Any = None, post: bool = True, **settings: Any) -> int:
    """A tokenizer of whole words that is none of BERT's; its size."""
    listed = [*MARKS, *sorted({word for text in TEXTS.values() for word in text.split()}), "letter", "a", ":"]
    made = Tokenizer(models.WordLevel({w: n for n, w in enumerate(dict.fromkeys(listed))}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.normalizer = normalizer
    marks = [("[CLS]", 2), ("[SEP]", 3)]
    if post:
        made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast: Any = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, **{"model_max_length": 64, **names, **settings}
    )
    fast.save_pretrained(folder)
    return made.get_vocab_size()


def byte_pairs(folder: Path) -> int:
    """RoBERTa's tokenizer by vocab.json and merges.txt alone; its size."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel()
    made.train_from_iterator(
        TEXTS.values(),
        trainers.BpeTrainer(
            vocab_size=330,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    made.model.save(str(folder))
    write(folder / "tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer", "model_max_length": 64})
    return made.get_vocab_size()


def letters() -> list[str]:
    return sorted({letter for text in TEXTS.values() for letter in text if not letter.isspace()})


def of_mpnet(folder: Path, **settings: Any) -> int:
    """MPNet's own tokenizer, by its class; its size."""
    pieces = dict.fromkeys(
        ["<s>", "<pad>", "</s>", "[UNK]", "<mask>", "the", *letters(), *(f"##{each}" for each in letters())]
    )
    made: Any = transformers.MPNetTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)}, **{"model_max_length": 64, **settings}
    )
    made.save_pretrained(folder)
    return len(made)


def of_xlm_roberta(folder: Path, **settings: Any) -> int:
    """XLM-R's own tokenizer, of pieces with probabilities, by its class; its size."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁the", "▁The", "▁cat", "and", *letters(), "<mask>"]
    made: Any = transformers.XLMRobertaTokenizer(
        vocab=[(piece, -float(number)) for number, piece in enumerate(dict.fromkeys(pieces))],
        **{"model_max_length": 64, **settings},
    )
    made.save_pretrained(folder)
    return len(made)


def backbone(
    folder: Path, kind: str = "bert", tokenizer: Callable[..., int] = word_pieces, **changes: Any
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {**SIZES, **SIZES_OF.get(kind, {}), "vocab_size": tokenizer(folder), **changes}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **sizes))
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)


# -- what sentence-transformers puts beside it


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), "utf-8")


def change(path: Path, **values: Any) -> None:
    write(path, {**(json.loads(path.read_text("utf-8")) if path.is_file() else {}), **values})


def modules(
    folder: Path,
    kinds: Sequence[str] = ("Transformer", "Pooling", "Normalize"),
    paths: Sequence[str] = ("", "1_Pooling", "2_Normalize"),
    types: str | Mapping[str, str] = OLD,
    pooling: Mapping[str, Any] | None = None,
    transformer: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    file: str = "sentence_bert_config.json",
) -> None:
    listed = [
        {
            "idx": n,
            "name": str(n),
            "path": path,
            "type": types + kind if isinstance(types, str) else types[kind],
        }
        for n, (kind, path) in enumerate(zip(kinds, paths, strict=False))
    ]
    write(folder / "modules.json", listed)
    if len(paths) > 1 and ".." not in paths[1]:
        write(folder / paths[1] / "config.json", MEAN if pooling is None else pooling)
    if transformer is not None:
        write(folder / file, transformer)
    if settings is not None:
        write(folder / "config_sentence_transformers.json", settings)


def of(
    kind: str = "bert", tokenizer: Callable[..., int] = word_pieces, **described: Any
) -> Callable[[Path], None]:
    """A model with a list of modules."""

    def make(folder: Path) -> None:
        backbone(folder, kind, tokenizer)
        modules(folder, **described)

    return make


def with_tokenizer(tokenizer: Callable[..., int] = word_pieces, **settings: Any) -> Callable[[Path], int]:
    return lambda folder: tokenizer(folder, **settings)


def pools(*modes: str, **settings: Any) -> dict[str, Any]:
    return {
        "pooling": {
            "embedding_dimension": 16,
            "pooling_mode": modes[0] if len(modes) == 1 else modes,
            **settings,
        }
    }


def denses(folder: Path, *layers: tuple[int, int, str | None], **settings: Any) -> None:
    """Layers behind the pooling, each of so many inputs, so many outputs and a class of torch; a norm comes
    after them."""
    kinds = ("Transformer", "Pooling", *("Dense",) * len(layers), "Normalize")
    paths = ["", *(f"{n}_{kind}" for n, kind in enumerate(kinds[1:], 1))]
    modules(folder, kinds=kinds, paths=paths)
    for number, (inputs, outputs, activation) in enumerate(layers, 2):
        with torch.random.fork_rng():
            torch.manual_seed(number)
            linear = torch.nn.Linear(inputs, outputs, bias=activation is not None)
        described = {"in_features": inputs, "out_features": outputs, "bias": activation is not None}
        described["activation_function"] = f"torch.nn.modules.{activation or 'linear.Identity'}"
        write(folder / f"{number}_Dense" / "config.json", {**described, **settings})
        weights = {f"linear.{name}": each for name, each in linear.state_dict().items()}
        save_file(weights, folder / f"{number}_Dense" / "model.safetensors")


def with_dense(
    *layers: tuple[int, int, str | None], kind: str = "bert", **settings: Any
) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        backbone(folder, kind)
        denses(folder, *layers, **settings)

    return make


def _without_weights_of_dense(folder: Path) -> None:
    with_dense((16, 8, None))(folder)
    (folder / "2_Dense" / "model.safetensors").unlink()


def _of_embedding_gemma(folder: Path) -> None:
    """Its layers of both kinds, all of whose tokens see those after them, and two layers behind the mean."""
    backbone(folder, "gemma3_text", words, use_bidirectional_attention=True)
    denses(folder, (16, 48, None), (48, 16, None))
    prompts = {"query": "the : ", "document": "cat : "}
    write(folder / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": None})


def _of_qwen3_embedding(folder: Path) -> None:
    backbone(folder, "qwen3", with_tokenizer(words, padding_side="left"))
    modules(folder, **pools("lasttoken", include_prompt=True))
    prompts = {"query": "the : ", "document": ""}
    write(folder / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": None})


def of_config(kind: str = "bert", **values: Any) -> Callable[[Path], None]:
    """A plain model with other values in config.json."""

    def make(folder: Path) -> None:
        backbone(folder, kind)
        change(folder / "config.json", **values)

    return make


# -- cases of several steps


def _vocabulary_alone(folder: Path) -> None:
    backbone(folder)
    pieces = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    (folder / "vocab.txt").write_text(
        "".join(f"{piece}\n" for piece in sorted(pieces, key=pieces.get)), "utf-8"
    )
    (folder / "tokenizer.json").unlink()
    write(
        folder / "tokenizer_config.json",
        {"do_lower_case": True, "model_max_length": 64, "tokenizer_class": "BertTokenizer"},
    )


def _lengths_in_the_tokenizer(direction: str | None) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        backbone(folder, tokenizer=words)
        truncation = {"max_length": 7, "strategy": "LongestFirst", "stride": 0}
        truncation |= {"direction": direction} if direction else {}  # older files have none
        padding = {"strategy": {"Fixed": 32}, "direction": direction or "Right", "pad_to_multiple_of": None}
        padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
        change(folder / "tokenizer.json", truncation=truncation, padding=padding)
        path = folder / "tokenizer_config.json"
        settings = json.loads(path.read_text())
        write(path, {key: value for key, value in settings.items() if not key.endswith("_side")})

    return make


def _of_type(dtype: torch.dtype, size: str = "1GB") -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        backbone(folder)
        model = transformers.AutoModel.from_pretrained(folder, dtype=dtype)
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, max_shard_size=size)

    return make


def _with_the_head_of_its_training(folder: Path) -> None:
    backbone(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(folder)


def _with_stored_positions(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    backbone(folder)
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.position_ids"] = torch.arange(66).unsqueeze(0)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _more_tokens(folder: Path) -> None:
    """Added to the tokenizer alone."""
    backbone(folder)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)


def _with_an_adapter(folder: Path) -> None:
    backbone(folder)
    write(folder / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "bert"})


def _longer(folder: Path) -> None:
    """As 08_encoder_512: no length but the tokenizer's and the positions'."""
    backbone(folder, tokenizer=with_tokenizer(model_max_length=300), max_position_embeddings=300)


def _without_a_length(folder: Path) -> None:
    backbone(folder, tokenizer=with_tokenizer(model_max_length=int(1e30)))


KINDS = (
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "distilbert",
    "mpnet",
    "modernbert",
    "eurobert",
    "nomic_bert",
)
POOLED = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
LOWER = {"transformer": {"max_seq_length": 64, "do_lower_case": True}}
PROMPT = {"settings": {"prompts": {"query": "letter : ", "document": ""}, "default_prompt_name": "query"}}
NEW_TYPES = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}
BARE = {"kinds": ("Transformer", "Pooling")}
CASES: dict[str, Callable[[Path], None]] = {
    **{f"plain {kind}": lambda folder, kind=kind: backbone(folder, kind) for kind in KINDS},
    "plain, 300 positions": _longer,
    "plain, no length": _without_a_length,
    "listed modules": of(),
    "no Normalize": of(**BARE),
    "pooling elsewhere": of(
        paths=("", "pool/first", "2_Normalize"),
        pooling={**MEAN, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
    ),
    "names since 5.4": of(types=NEW_TYPES, **pools("cls", include_prompt=True)),
    **{f"pooling {mode}": of(**BARE, **pools(mode)) for mode in POOLED},
    **{
        f"pooling {mode}, padded left": of(
            tokenizer=with_tokenizer(padding_side="left"), **BARE, **pools(mode)
        )
        for mode in POOLED
    },
    **{
        f"{kind}, last token": of(kind, words, **pools("lasttoken"))
        for kind in ("llama", "mistral", "qwen2", "qwen3", "gemma3_text")
    },
    "as Qwen3-Embedding": _of_qwen3_embedding,
    "as EmbeddingGemma": _of_embedding_gemma,
    "a layer behind the pooling": with_dense((16, 24, "activation.Tanh")),
    "layers behind the pooling": with_dense((16, 24, "activation.GELU"), (24, 8, None), kind="modernbert"),
    "pooling two ways": of(**pools("lasttoken", "mean")),
    "pooling three ways, before 5.4": of(
        pooling={**MEAN, "pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}
    ),
    "pooling no way, before 5.4": of(pooling={**MEAN, "pooling_mode_mean_tokens": False}),
    "lower case": of(**LOWER),
    "lower case, whole words": of(tokenizer=words, **LOWER),
    "lower case before other steps": of(
        tokenizer=with_tokenizer(
            words, normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.StripAccents()])
        ),
        **LOWER,
    ),
    "lower case, which it has": of(
        tokenizer=with_tokenizer(words, normalizer=normalizers.Lowercase()), **LOWER
    ),
    "default prompt": of(**PROMPT),
    "default prompt, cut with the text": of(transformer={"max_seq_length": 12}, **PROMPT),
    "prompts without a default": of(
        settings={"prompts": {"query": "letter : "}, "default_prompt_name": None}
    ),
    "prompts not pooled, of which there are none": of(**pools("mean", include_prompt=False)),
    "first dimensions": of(settings={"truncate_dim": 10}),
    **{
        f"compared by {name}": of(**BARE, settings={"similarity_fn_name": name})
        for name in ("dot", "euclidean", "manhattan")
    },
    **{
        f"max_seq_length of all positions, {kind}": of(kind, transformer={"max_seq_length": 66})
        for kind in ("bert", "roberta", "mpnet")
    },
    "max_seq_length above max_position_embeddings, modernbert": of(
        "modernbert", transformer={"max_seq_length": 80}
    ),
    "max_seq_length of none": of(transformer={"max_seq_length": None, "do_lower_case": False}),
    "settings by RoBERTa's name": of(
        "roberta", transformer={"max_seq_length": 20}, file="sentence_roberta_config.json"
    ),
    "vocab.txt alone": _vocabulary_alone,
    "vocab.json and merges.txt alone": lambda folder: backbone(folder, "roberta", byte_pairs, pad_token_id=1),
    "MPNet's tokenizer": lambda folder: backbone(folder, "mpnet", of_mpnet, pad_token_id=1),
    "XLM-R's tokenizer": lambda folder: backbone(folder, "xlm-roberta", of_xlm_roberta, pad_token_id=1),
    "lengths in the tokenizer": _lengths_in_the_tokenizer("Right"),
    "lengths in an older tokenizer": _lengths_in_the_tokenizer(None),
    "lengths in the tokenizer, left": _lengths_in_the_tokenizer("Left"),
    "cut left": of(tokenizer=with_tokenizer(truncation_side="left")),
    "padded left, roberta": of("roberta", tokenizer=with_tokenizer(padding_side="left")),
    "padded left, modernbert": of("modernbert", tokenizer=with_tokenizer(padding_side="left")),
    "lowered by the tokenizer": of(tokenizer=with_tokenizer(do_lower_case=True)),
    "lowered with accents": of(tokenizer=with_tokenizer(do_lower_case=True, strip_accents=False)),
    "accents stripped": of(tokenizer=with_tokenizer(strip_accents=True)),
    "Chinese characters in words": of(tokenizer=with_tokenizer(tokenize_chinese_chars=False)),
    "without marks": of(tokenizer=with_tokenizer(words, post=False)),
    "attends to what is before": of_config(is_decoder=True),
    "other rotations, eurobert": of_config(
        "eurobert", rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}
    ),
    "other rotations, modernbert": of_config("modernbert", global_rope_theta=900.0, local_rope_theta=50.0),
    "outputs without names, attention weights": of_config(return_dict=False, output_attentions=True),
    "a rotation that BERT has not": of_config(rope_parameters={"rope_type": "linear", "factor": 2.0}),
    "no padding named, bert": of_config(pad_token_id=None),
    "float16": _of_type(torch.float16),
    "bfloat16": _of_type(torch.bfloat16),
    "shards": _of_type(torch.float32, "5KB"),
    "the head of its training": _with_the_head_of_its_training,
    "stored positions": _with_stored_positions,
}
MORE = ("Transformer", "Pooling", "LayerNorm", "Normalize")
REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {  # and what the message says
    "Dense without weights": (_without_weights_of_dense, "model.safetensors"),
    "Dense of other inputs": (with_dense((24, 8, None)), "linear.weight"),
    "Dense of another activation": (with_dense((16, 8, "activation.PReLU")), "activation_function"),
    "Dense with a residual": (with_dense((16, 16, None), use_residual=True), "use_residual"),
    "Dense of tokens": (
        with_dense((16, 8, None), module_input_name="token_embeddings"),
        "token_embeddings",
    ),
    "a layer of norms": (of(kinds=MORE, paths=("", "1_Pooling", "2_LayerNorm", "3_Normalize")), "LayerNorm"),
    "pooling of layers": (
        of(kinds=("Transformer", "WeightedLayerPooling", "Pooling")),
        "WeightedLayerPooling",
    ),
    "normalised first": (of(kinds=("Transformer", "Normalize", "Pooling")), "in this order"),
    "no pooling": (of(kinds=("Transformer",)), "in this order"),
    "modules of its own": (of(types="custom_st."), "custom_st.Transformer"),
    "model in a folder": (of(paths=("0_BERT", "1_Pooling", "2_Normalize")), "0_BERT"),
    "outside": (of(paths=("", "../1_Pooling", "2_Normalize")), "outside the folder"),
    "unknown pooling": (of(**pools("attention")), "pooling_mode = attention"),
    "pooling without settings": (of(pooling={}), "no config.json of the module Pooling"),
    "unknown key of pooling": (of(**pools("mean", temperature=2)), "temperature"),
    "prompts not pooled": (of(**pools("mean", include_prompt=False), **PROMPT), "include_prompt"),
    "a prompt that is not there": (
        of(settings={"prompts": {}, "default_prompt_name": "task"}),
        "default_prompt_name",
    ),
    "a sparse encoder": (of(settings={"model_type": "SparseEncoder"}), "SparseEncoder"),
    "compared by maxsim": (of(settings={"similarity_fn_name": "maxsim"}), "maxsim"),
    "another head": (of(transformer={"transformer_task": "fill-mask"}), "transformer_task"),
    "other texts for queries": (of(transformer={"query_length": 8}), "query_length"),
    "arguments of the tokenizer": (
        of(transformer={"tokenizer_args": {"padding_side": "left"}}),
        "tokenizer_args",
    ),
    "a plain language model": (of_config(architectures=["EuroBertForCausalLM"]), "EuroBertForCausalLM"),
    "a mark that no token is": (
        lambda folder: (
            backbone(folder, tokenizer=words),
            change(
                folder / "tokenizer.json",
                post_processor={
                    "type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}],
                    "pair": [],
                    "special_tokens": {},
                },
            ),
        ),
        "no fast form",
    ),
    "no number of padding": (of_config("roberta", pad_token_id=None), "pad_token_id null"),
    **{
        f"max_seq_length of {length!r}": (of(transformer={"max_seq_length": length}), "max_seq_length")
        for length in (0, -1, "64", 20.0)
    },
    "tokens beyond the embedding": (_more_tokens, "tokens that the model does not know"),
    "an adapter": (_with_an_adapter, "adapter_config.json"),
    "unknown key": (of(transformer={"max_seq_length": 64, "do_upper_case": True}), "do_upper_case"),
}
