"""Encoders with a head: read as transformers reads them, with the losses that it has, and refused by name."""

import json

import pytest
import torch
import transformers

from compress import tasks
from compress.config.declare import declare_options
from compress.data.record import Record
from compress.errors import ModelError
from compress.registry import OPTIONS
from compress.stages.result import read_result
from compress.tasks.text.kind import UNKNOWN
from tests.heads import CLASSES, TASKS, write_headed

PAIRS = (
    ("text_classification", "distilbert"),
    ("text_classification", "modernbert"),
    ("reranking", "roberta"),
    ("token_classification", "modernbert"),
    ("token_classification", "xlm-roberta"),
    ("question_answering", "mpnet"),
)
TEXTS = ["the river runs under the old stone", "a quiet garden", "the train waits again today"]


def imported(task, folder, out):
    declare_options()
    tasks.import_model(OPTIONS["model"][TASKS[task][0]](source=f"path:{folder}"), out)
    return tasks.load(out)


@pytest.mark.parametrize(("task", "architecture"), PAIRS)
def test_architectures_are_read_as_stock_libraries_read_them(task, architecture, tmp_path):
    model = imported(task, write_headed(tmp_path / "published", task, architecture), tmp_path / "out")
    [gate] = read_result(tmp_path / "out").gates
    assert gate.numbers["max_abs_diff_of_outputs"] < 1e-5
    assert gate.numbers["equal_tokens"] > 7
    assert model.facts.task == task


@pytest.mark.parametrize("task", TASKS)
def test_a_saved_model_is_one_of_transformers_with_names_of_its_outputs(task, headed_checkpoints, tmp_path):
    model = tasks.load(headed_checkpoints[task])
    model.save(tmp_path, model.facts)
    stock = getattr(transformers, TASKS[task][1]).from_pretrained(tmp_path, local_files_only=True).eval()
    inputs = model.tokenize(TEXTS)
    with torch.no_grad():
        for name, ours in model.outputs(inputs).items():
            torch.testing.assert_close(getattr(stock(**inputs), name), ours, atol=1e-6, rtol=0)
    config = json.loads((tmp_path / "config.json").read_text())
    assert len(config["id2label"]) == stock.config.num_labels
    assert config["label2id"] == {name: int(number) for number, name in config["id2label"].items()}
    if task == "text_classification":
        assert list(config["id2label"].values()) == CLASSES
        assert config["problem_type"] == "single_label_classification"


def labelled(task):
    """Examples with labels, and the keywords by which transformers takes these."""
    if task == "token_classification":
        tags = [[1, 2, 0, 3, 4, 0, 0], [3, 0, 1], [0, 1, 2, 0, 0]]
        examples = [
            Record(words=tuple(text.split()), tags=tuple(of)) for text, of in zip(TEXTS, tags, strict=True)
        ]
        rows = [[UNKNOWN, *of, *[UNKNOWN] * (8 - len(of))] for of in tags]
        return examples, {"labels": torch.tensor(rows)}
    if task == "question_answering":
        contexts = ["the river runs under", "a long bright letter", "music falls over the city"]
        examples = [
            Record(text="what runs", pair=context, answers=((start, context[start:end]),))
            for context, (start, end) in zip(contexts, ((4, 9), (0, 6), (12, 25)), strict=True)
        ]
        places = torch.tensor([[5, 5], [4, 5], [6, 8]])  # behind [CLS] what runs [SEP]
        return examples, {"start_positions": places[:, 0], "end_positions": places[:, 1]}
    labels = {"single": ((0,), (2,), (1,)), "several": ((1, 0, 1), (0, 0, 0), (0, 1, 1))}
    values = labels["several" if task == "several" else "single"]
    kind = torch.float32 if task == "several" else torch.int64
    given = torch.tensor(values, dtype=kind)
    examples = [Record(text=text, labels=each) for text, each in zip(TEXTS, values, strict=True)]
    return examples, {"labels": given if task == "several" else given[:, 0]}


@pytest.mark.parametrize(
    "task", ["text_classification", "several", "token_classification", "question_answering"]
)
def test_the_loss_of_labels_is_that_of_transformers(task, tmp_path):
    """Of one text at a time: it takes the mean over what has a label, ours that of the sums of texts."""
    several = {"problem_type": "multi_label_classification"} if task == "several" else {}
    of = "text_classification" if several else task
    model = imported(of, write_headed(tmp_path / "p", of, **several), tmp_path / "out")
    stock = getattr(transformers, TASKS[model.task][1]).from_pretrained(tmp_path / "out").eval()
    examples, labels = labelled(task)
    parts = {"several": 3, "question_answering": 2}
    for number, example in enumerate(examples):
        rows = model.processor.encode([example])
        inputs = {name: torch.from_numpy(array) for name, array in model.processor.feeds(rows).items()}
        given = {name: each[number : number + 1] for name, each in labels.items()}
        if task == "token_classification":
            given = {name: each[:, : inputs["input_ids"].shape[1]] for name, each in given.items()}
        with torch.no_grad():
            expected = stock(**inputs, **given).loss
            answers = model.run(inputs)
        count = len(example.tags) or parts.get(task, 1)
        ours = model.label_error(answers, model.labels(rows)) / count
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_the_distance_to_itself_is_zero_and_padding_adds_none(task, headed_checkpoints):
    model = tasks.load(headed_checkpoints[task])
    with torch.no_grad():
        answers = model.run(model.tokenize(TEXTS))
        moved = answers + torch.randn(answers.shape, generator=torch.Generator().manual_seed(0)) * (
            answers > -99
        )
    assert model.distance(answers, answers).abs().max() < 1e-5
    assert (model.distance(moved, answers) > 0).all()
    alone = [model.run(model.tokenize([text])) for text in TEXTS]
    if task != "question_answering" and task != "reranking":  # whose texts are read with the next
        dense = torch.cat([model.distance(each, torch.zeros_like(each)) for each in alone])
        together = model.distance(answers, torch.zeros_like(answers))
        torch.testing.assert_close(dense, together, atol=1e-4, rtol=1e-4)


def test_a_model_with_another_head_is_refused_with_the_option_for_it(headed_published, tmp_path):
    for task, other, advised in (
        ("text_classification", "token_classification", "token_classifier"),
        ("question_answering", "text_classification", "reranker or text_classifier"),
        ("token_classification", "question_answering", "question_answerer"),
    ):
        with pytest.raises(ModelError, match=rf"another head(.|\n)*try model={advised}"):
            imported(task, headed_published[other], tmp_path / task)


def test_a_reranker_gives_one_number(headed_published, tmp_path):
    with pytest.raises(ModelError, match=r"several numbers(.|\n)*calm, loud, odd(.|\n)*text_classifier"):
        imported("reranking", headed_published["text_classification"], tmp_path)


@pytest.mark.parametrize(
    ("named", "activation"),
    [(None, "sigmoid"), ("torch.nn.modules.linear.Identity", "none"), ("torch.nn.Sigmoid", "sigmoid")],
)
def test_the_activation_of_a_reranker_is_that_of_sentence_transformers(named, activation, tmp_path):
    folder = write_headed(
        tmp_path / "p", "reranking", sentence_transformers={"activation_fn": named} if named else {}
    )
    model = imported("reranking", folder, tmp_path / "out")  # held against its scores there
    assert model.processor.settings.activation == activation


def test_an_activation_that_is_not_done_here_is_refused(tmp_path):
    unknown = {"activation_fn": "torch.nn.modules.activation.Tanh"}
    folder = write_headed(tmp_path / "p", "reranking", sentence_transformers=unknown)
    with pytest.raises(
        ModelError, match=r"not exported\n  found:   the activation torch\.nn\.modules.activation.Tanh"
    ):
        imported("reranking", folder, tmp_path / "out")
