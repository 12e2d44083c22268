"""What ships opens in the pipelines that people use: of transformers over onnxruntime, of transformers.js in
Node.js, and in sentence-transformers' CrossEncoder."""

import json
import subprocess

import numpy as np
import pytest
import torch
import transformers
from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput

from compress.config.export import TorchExport
from compress.data.record import Record
from compress.export import export
from compress.graph import graph_path
from compress.graph.session import open_session
from compress.tasks import open_processor
from compress.tasks.question_answering.metrics import best_answers
from tests.heads import CLASSES, TAGS, TASKS
from tests.test_transformers_js import FIXTURES, laid_out, library  # noqa: F401

TEXTS = ["the river runs under the old stone", "a quiet garden", "the train waits again today"]


@pytest.fixture(scope="session")
def shipped(once, headed_checkpoints, splits_folder):
    """Task -> an artifact of its float graph, in the layout of transformers.js."""

    def get(task):
        checkpoint = headed_checkpoints[task]
        graph = once(
            f"headed-graph-{task}", lambda out: export(TorchExport(), checkpoint, splits_folder, out)
        )
        return (
            once(f"headed-shipped-{task}", lambda out: laid_out(out / "m", graph, checkpoint, "recovered"))
            / "m"
        )

    return get


@pytest.fixture(scope="session")
def processors(headed_checkpoints):
    return {task: open_processor(folder) for task, folder in headed_checkpoints.items()}


def run(folder, processor, examples):
    """The graph on inputs of our own processor."""
    session = open_session(graph_path(folder))
    names = [value.name for value in session.get_outputs()]
    feeds = processor.feeds(processor.encode(examples))
    return dict(zip(names, session.run(names, feeds), strict=True))


class OverOnnx(transformers.PreTrainedModel):
    """The least that a pipeline of transformers needs of a model."""

    def __init__(self, folder, output):
        super().__init__(transformers.AutoConfig.from_pretrained(folder))
        self.session, self.output = open_session(graph_path(folder)), output
        self.names = [value.name for value in self.session.get_inputs()]
        self.weight = torch.nn.Parameter(torch.zeros(1))  # whose device the pipeline asks for

    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None):
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        [logits] = self.session.run(["logits"], {name: given[name].numpy() for name in self.names})
        return self.output(logits=torch.from_numpy(logits))


def in_transformers(task, folder, output):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return transformers.pipeline(task, model=OverOnnx(folder, output), tokenizer=tokenizer)


def in_node(library, folder, task, calls, scratch):  # noqa: F811
    (scratch / "calls.json").write_text(json.dumps(calls))
    command = ["node", FIXTURES / "pipelines.mjs", folder, task, scratch / "calls.json"]
    done = subprocess.run(command, cwd=library, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def test_classes_of_texts(shipped, processors, library, tmp_path):  # noqa: F811
    folder = shipped("text_classification")
    expected = softmax(run(folder, processors["text_classification"], TEXTS)["logits"])
    pipe = in_transformers("text-classification", folder, SequenceClassifierOutput)
    for row, alone in zip(expected, [pipe(text) for text in TEXTS], strict=True):
        assert alone[0]["label"] == CLASSES[row.argmax()]
        assert alone[0]["score"] == pytest.approx(row.max(), abs=1e-5)
    said = in_node(library, folder, "text-classification", [[text] for text in TEXTS], tmp_path)
    for row, [answer] in zip(expected, said, strict=True):
        assert answer["label"] == CLASSES[row.argmax()]
        assert answer["score"] == pytest.approx(row.max(), abs=1e-4)


@pytest.mark.slow
def test_tags_of_words(shipped, processors, library, tmp_path):  # noqa: F811
    folder = shipped("token_classification")
    pipe = in_transformers("token-classification", folder, TokenClassifierOutput)
    for text in TEXTS:
        tags = [
            TAGS[tag]
            for tag in run(folder, processors["token_classification"], [text])["logits"][0].argmax(-1)[1:-1]
        ]
        words = [(word, tag) for word, tag in zip(text.split(), tags, strict=True) if tag != "O"]
        assert [(each["word"], each["entity"]) for each in pipe(text)] == words
        [said] = in_node(library, folder, "token-classification", [[text]], tmp_path)
        assert [(each["word"], each["entity"]) for each in said] == words


@pytest.mark.slow
def test_answers_to_questions(shipped, processors, library, tmp_path):  # noqa: F811
    folder = shipped("question_answering")
    context = " ".join(TEXTS)
    for question in ("what runs under", "where"):
        examples = [Record(text=question, pair=context)]
        processor = processors["question_answering"]
        windows, given = processor.windows(examples), run(folder, processor, examples)
        [[begin, end, _]] = best_answers(windows, [given], 1, 64, may_be_none=False)
        [said] = in_node(library, folder, "question-answering", [[question, context]], tmp_path)
        assert said["answer"].strip() == context[int(begin) : int(end)]


def test_scores_of_passages(shipped, processors):
    """As sentence-transformers ranks them by the checkpoint that ships beside."""
    from sentence_transformers import CrossEncoder

    folder = shipped("reranking")
    query = Record(text="old stone", candidates=tuple(TEXTS))
    scores = run(folder, processors["reranking"], [query])["logits"][:, 0]
    model = CrossEncoder(str(folder / "checkpoint"), device="cpu", local_files_only=True)
    ranked = model.rank("old stone", TEXTS)
    assert [each["corpus_id"] for each in ranked] == (-scores).argsort().tolist()
    assert [each["score"] for each in ranked] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)


def test_every_task_is_tried_here():
    assert {*TASKS} == {"text_classification", "token_classification", "question_answering", "reranking"}
