"""Published folders in the layout and with the tokenizers of transformers 4.57, which has to run this.

Run as a script: written_by_4.py FOLDER. Knows nothing of this package.
"""

import json
import random
import sys
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

WORDS = [
    "the",
    "a",
    "river",
    "mountain",
    "city",
    "train",
    "winter",
    "music",
    "bread",
    "stone",
    "old",
    "new",
    "quiet",
    "green",
    "long",
    "bright",
    "runs",
    "falls",
]
MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.25,
}
SHARED = {"num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True}
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
ALTERNATING = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
LONG = {"short_factor": [1 + i / 8 for i in range(8)], "long_factor": [2.0 + i for i in range(8)]}
LANGUAGE = {
    "llama": {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, **LLAMA3}, "eos_token_id": [2, 0]},
    "mistral": {},
    "qwen3": {"rope_scaling": YARN},
    "smollm3": {"no_rope_layers": [1, 0]},
    "gemma3_text": {
        "rope_local_base_freq": 50.0,
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
        **ALTERNATING,
    },
    "phi3": {
        "hidden_size": 64,
        "head_dim": None,
        "original_max_position_embeddings": 16,
        "rope_scaling": {"type": "longrope", **LONG},
    },
}
ENCODERS = {
    "bert": {},
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4},
    "modernbert": {"global_rope_theta": 300.0, "local_rope_theta": 50.0, **ENDS, "pad_token_id": 0},
}
IMAGES = ("vit", "deit")
PRUNED = ("bert", "vit")


def byte_level(folder, kind):
    """As SmolLM2's, whose settings have a null."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=MARKS, initial_alphabet=letters, show_progress=False
    )
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=12)).capitalize() + "." for _ in range(200)]
    tokenizer.train_from_iterator(texts, trainer)
    name = "Qwen2TokenizerFast" if kind == "qwen3" else "GPT2TokenizerFast"
    fast = getattr(transformers, name)(
        tokenizer_object=tokenizer,
        **{"bos_token": MARKS[1], "eos_token": MARKS[2], "unk_token": MARKS[0], "pad_token": MARKS[2]},
        additional_special_tokens=MARKS[1:],
    )
    fast.chat_template = CHAT
    fast.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"add_prefix_space": None}))
    return len(fast)


def wordpiece(folder, kind):
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    names = [*marks, *WORDS, *(set(letters + ".,:'") - set(WORDS)), *("##" + letter for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(sorted(names, key=lambda name: (name not in marks, name))))
    fast = transformers.BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), model_max_length=64)
    fast.save_pretrained(folder)
    return len(fast)


def write(folder, kind, auto, **sizes):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **{key: v for key, v in sizes.items() if v is not None})
    model = getattr(transformers, auto)(config)
    for name, parameter in model.named_parameters():  # zero biases would hide what forgets them
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def main(root):
    assert transformers.__version__.startswith("4.57"), transformers.__version__
    classes = transformers.models.auto.modeling_auto
    for kind, changes in LANGUAGE.items():
        (folder := root / kind).mkdir(parents=True)
        sizes = {**SIZES, **SHARED, **ENDS, "rope_theta": 300.0, **changes}
        name = classes.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]
        write(folder, kind, name, vocab_size=byte_level(folder, kind), **sizes).save_pretrained(folder)
    for kind, changes in ENCODERS.items():
        (folder := root / kind).mkdir()
        sizes = {**SIZES, "pad_token_id": 0, **changes}
        model = write(
            folder, kind, classes.MODEL_MAPPING_NAMES[kind], vocab_size=wordpiece(folder, kind), **sizes
        )
        model.save_pretrained(folder)
        if kind in PRUNED:
            model.prune_heads({0: [1, 2], 1: [0]})
            (pruned := root / f"{kind}-pruned").mkdir()
            model.save_pretrained(pruned)
            wordpiece(pruned, kind)
    small = {"image_size": 8, "patch_size": 4, "num_channels": 1, "hidden_size": 16, "num_labels": 3}
    prepared = {"size": {"height": 8, "width": 8}, "image_mean": [0.4], "image_std": [0.3]}
    for kind in IMAGES:
        name = classes.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES[kind]
        name = "DeiTForImageClassification" if kind == "deit" else name
        model = write(root / kind, kind, name, **{**SIZES, **small})
        folders = [root / kind]
        model.save_pretrained(folders[0])
        if kind in PRUNED:
            folders.append(root / f"{kind}-pruned")
            model.prune_heads({0: [1, 2], 1: [0]})
            model.save_pretrained(folders[1])
        crop = {"crop_size": prepared["size"]} if kind == "deit" else {}  # else 224 pixels of its class
        for folder in folders:
            (folder / "preprocessor_config.json").write_text(json.dumps({**prepared, **crop}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
