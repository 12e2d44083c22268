"""Folders with the files, the keys and the leftovers of models of the hub, with small random weights."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from compress import tasks
from compress.config.declare import declare_options
from compress.registry import OPTIONS
from compress.stages.result import read_result
from compress.tasks.text.kind import Kind
from tests.heads import TASKS, write_headed

# As their config.json has them beside sizes.
HUB = {
    "cross-encoder/ms-marco-MiniLM-L6-v2": (
        "reranking",
        "bert",
        {
            "_name_or_path": "./output/training_ms-marco_cross-encoder",
            "architectures": ["BertForSequenceClassification"],
            "gradient_checkpointing": False,
            "id2label": {"0": "LABEL_0"},
            "label2id": {"LABEL_0": 0},
            "position_embedding_type": "absolute",
            "sentence_transformers": {
                "activation_fn": "torch.nn.modules.linear.Identity",
                "version": "4.1.0.dev0",
            },
            "transformers_version": "4.4.2",
            "use_cache": True,
        },
    ),
    "dslim/bert-base-NER": (
        "token_classification",
        "bert",
        {
            "_num_labels": 9,
            "architectures": ["BertForTokenClassification"],
            "id2label": dict(
                enumerate(
                    f"{letter}-{kind}" if kind else "O"
                    for letter, kind in [
                        ("O", ""),
                        *((letter, kind) for kind in ("MISC", "PER", "ORG", "LOC") for letter in "BI"),
                    ]
                )
            ),
            "output_past": True,
            "pad_token_id": 1,
        },
    ),
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english": (
        "text_classification",
        "distilbert",
        {
            "activation": "gelu",
            "architectures": ["DistilBertForSequenceClassification"],
            "finetuning_task": "sst-2",
            "id2label": {"0": "NEGATIVE", "1": "POSITIVE"},
            "label2id": {"NEGATIVE": 0, "POSITIVE": 1},
            "output_past": True,
            "qa_dropout": 0.1,
            "seq_classif_dropout": 0.2,
            "tie_weights_": True,
        },
    ),
    "deepset/tinyroberta-squad2": (
        "question_answering",
        "roberta",
        {
            "architectures": ["RobertaForQuestionAnswering"],
            "gradient_checkpointing": False,
            "language": "english",
            "name": "Roberta",
            "position_embedding_type": "absolute",
            "type_vocab_size": 1,
            "use_cache": True,
        },
    ),
}
LEFT = {"bert": "bert.", "roberta": "roberta.", "distilbert": "distilbert."}


@pytest.mark.parametrize("name", HUB)
def test_a_model_of_the_hub(name, tmp_path):
    """With a pooler that the head does not read and positions that older releases stored."""
    task, architecture, described = HUB[name]
    folder = write_headed(tmp_path / "published", task, architecture, **described)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **described}))
    weights = load_file(folder / "model.safetensors")
    prefix = LEFT[architecture]
    weights[f"{prefix}embeddings.position_ids"] = torch.arange(66)[None]
    if task in ("token_classification", "question_answering"):
        weights[f"{prefix}pooler.dense.weight"] = torch.zeros(32, 32)
        weights[f"{prefix}pooler.dense.bias"] = torch.zeros(32)
    if architecture == "roberta":  # whose tokenizer does not tell two texts apart
        path = folder / "tokenizer_config.json"
        names = {"model_input_names": ["input_ids", "attention_mask"]}
        path.write_text(json.dumps({**json.loads(path.read_text()), **names}))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    declare_options()
    tasks.import_model(OPTIONS["model"][TASKS[task][0]](source=f"path:{folder}"), tmp_path / "out")
    [gate] = read_result(tmp_path / "out").gates
    assert gate.numbers["max_abs_diff_of_outputs"] < 1e-5
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    if "id2label" in described:
        assert list(written["id2label"].values()) == list(described["id2label"].values())
    model = tasks.load(tmp_path / "out")
    assert model.kind is (Kind.values if task == "reranking" else Kind.classes)
    if task == "reranking":
        assert written["sentence_transformers"] == described["sentence_transformers"]
        assert model.processor.settings.activation == "none"
