"""A tiny published model of every task of text encoders with a head, and labelled text for it."""

import json
import random
from pathlib import Path

import pytest
import torch
import transformers

from compress.config.declare import declare_options
from compress.registry import OPTIONS
from compress.tasks import import_model
from tests.once import Folders, Once

SPECIAL = {
    **{"cls_token": "[CLS]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]"},
    "mask_token": "[MASK]",
}
WORDS = [
    "the", "a", "river", "mountain", "city", "train", "winter", "music", "bread", "stone", "old", "new",
    "quiet", "green", "long", "bright", "runs", "falls", "sings", "opens", "under", "over", "near", "and",
    "with", "after", "before", "slowly", "again", "today", "window", "garden", "letter", "child", "market",
    "island", "answers", "waits", "grows", "breaks", "where", "what",
]  # fmt: skip
SIZES = {
    "vocab_size": len(SPECIAL) + len(WORDS) + 3,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "hidden_dim": 64,  # DistilBERT's name of it
    "max_position_embeddings": 66,
    "pad_token_id": 1,
    "initializer_range": 0.25,  # the usual 0.02 leaves a random model nearly linear
}
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
CLASSES = ["calm", "loud", "odd"]
# task -> option of the group model, class of transformers, config, as models of the hub have it
TASKS: dict[str, tuple[str, str, dict[str, object]]] = {
    "text_classification": (
        "text_classifier",
        "AutoModelForSequenceClassification",
        {"id2label": dict(enumerate(CLASSES)), "problem_type": "single_label_classification"},
    ),
    "reranking": (
        "reranker",
        "AutoModelForSequenceClassification",
        {"num_labels": 1, "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
    ),
    "token_classification": (
        "token_classifier",
        "AutoModelForTokenClassification",
        {"id2label": dict(enumerate(TAGS))},
    ),
    "question_answering": ("question_answerer", "AutoModelForQuestionAnswering", {}),
}


def write_words(folder: Path) -> None:
    """BERT's tokenizer with a vocabulary of whole words."""
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL.values(), *WORDS, ".", ",", "?"]) + "\n")
    settings = {"tokenizer_class": "BertTokenizer", "model_max_length": 64, **SPECIAL}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    transformers.BertTokenizer.from_pretrained(folder).save_pretrained(folder)


def write_headed(folder: Path, task: str, architecture: str = "bert", **changes: object) -> Path:
    """A folder as a hub would serve it, with random weights that the task's name seeds."""
    _, auto, config = TASKS[task]
    own = {"num_hidden_layers": 4, "local_attention": 6} if architecture == "modernbert" else {}
    with torch.random.fork_rng():
        torch.manual_seed(list(TASKS).index(task))
        described = transformers.AutoConfig.for_model(architecture, **{**SIZES, **own, **config, **changes})
        model = getattr(transformers, auto).from_config(described)
        for name, parameter in model.named_parameters():  # zero biases would hide what forgets them
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(folder)
    write_words(folder)
    return folder


def words(rng: random.Random, count: int) -> list[str]:
    return rng.choices(WORDS[:40], k=count)


def record(rng: random.Random, task: str) -> dict[str, object]:
    """As a line of jsonl has it."""
    if task == "text_classification":
        return {"text": " ".join(words(rng, rng.randint(5, 20))), "label": rng.choice(CLASSES)}
    if task == "token_classification":
        tags = [rng.choice(TAGS) for _ in range(rng.randint(5, 20))]
        return {"words": words(rng, len(tags)), "tags": tags}
    context = words(rng, rng.randint(20, 90))  # some are read in several windows
    at = rng.randrange(len(context) - 3)
    start = len(" ".join(context[:at])) + (at > 0)
    answers = {"text": [" ".join(context[at : at + 3])], "answer_start": [start]}
    return {"question": " ".join(words(rng, 5)) + "?", "context": " ".join(context), "answers": answers}


def pairs(rng: random.Random) -> list[dict[str, object]]:
    """Of one query, as sentence-transformers' cross-encoders are trained: a passage and its label a line."""
    query = " ".join(words(rng, 4))
    texts = [" ".join(words(rng, rng.randint(5, 20))) for _ in range(6)]
    return [{"text": query, "pair": text, "label": int(text is texts[0])} for text in texts]


def write_records(folder: Path, task: str, count: int = 120) -> None:
    """data.jsonl: labels are drawn, so that a model of random weights is as good as any."""
    rng = random.Random(list(TASKS).index(task))
    if task == "reranking":
        rows = [row for _ in range(count) for row in pairs(rng)]
        rng.shuffle(rows)
    else:
        rows = [record(rng, task) for _ in range(count)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="session")
def headed_published(once: Once) -> Folders:
    """Task -> folder in Hugging Face layout, not to be written to."""
    return Folders(tuple(TASKS), lambda task: once(f"headed-{task}", lambda out: write_headed(out, task)))


@pytest.fixture(scope="session")
def headed_checkpoints(once: Once, headed_published: Folders) -> Folders:
    """Task -> checkpoint as the load stage leaves it, not to be written to."""

    def build(task: str) -> Path:
        declare_options()
        model = OPTIONS["model"][TASKS[task][0]](source=f"path:{headed_published[task]}")
        return once(f"headed-checkpoint-{task}", lambda out: import_model(model, out))

    return Folders(tuple(TASKS), build)


@pytest.fixture(scope="session")
def headed_records(once: Once) -> Folders:
    """Task -> folder with data.jsonl."""
    return Folders(tuple(TASKS), lambda task: once(f"records-{task}", lambda out: write_records(out, task)))
