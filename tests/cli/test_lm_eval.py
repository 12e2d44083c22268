"""Tasks of lm-evaluation-harness on a shipped model, against transformers on the same checkpoint.

All but the first test are skipped without the extra: pip install '.[lm-eval]'.
"""

import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
import yaml
from tokenizers import processors

from compress.artifact import Manifest, write_artifact
from compress.cli.main import main
from compress.config.export import GenaiExport
from compress.config.model import CausalLMModel
from compress.errors import ArtifactError, ConfigError, DataError
from compress.export import export, plain
from compress.tasks import import_model

pytestmark = pytest.mark.filterwarnings("ignore")  # of lm-eval and of what it imports
CONTEXT = 256
QUESTIONS = [
    ("the old river", ["runs slowly", "sings", "under the new bridge of stone"], 0),
    ("A child waits near the window and", ["answers", "grows", "the letter opens again"], 2),
    ("bread", ["and stone", "falls", "breaks"], 1),
    ("winter music over the green island", ["today", "runs", "a quiet city"], 1),
]


def test_without_the_extra(tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.split(".")[0] == "lm_eval"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "compress.cli.lm_eval_tasks", raising=False)
    assert main(["lm-eval", str(tmp_path), "--tasks", "arc_easy"]) == 1
    assert "pip install '.[lm-eval]'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def harness():
    pytest.importorskip("lm_eval")
    from compress.cli import lm_eval_tasks as harness

    return harness


@pytest.fixture(scope="module", params=["fused", "plain, a mark before every text"])
def made(request, harness, tmp_path_factory, language_published, splits_folder):
    """`artifact`, the `checkpoint` that it was made from, and that one in torch."""
    folder = tmp_path_factory.mktemp("harness")
    checkpoint, graph = folder / "checkpoint", folder / "graph"
    model = transformers.AutoModelForCausalLM.from_pretrained(language_published["llama"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(language_published["llama"])
    if request.param != "fused":
        tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
            single="<|start|> $A", special_tokens=[("<|start|>", 1)]
        )
    for each in (model, tokenizer):
        each.save_pretrained(folder / "published")
    checkpoint.mkdir()
    graph.mkdir()
    import_model(CausalLMModel(source=f"path:{folder / 'published'}"), checkpoint)
    config = GenaiExport() if request.param == "fused" else plain(GenaiExport())
    export(config, checkpoint, splits_folder, graph)
    zeros = np.zeros((1, 2, 0, 16), np.float32)
    inputs = {
        "input_ids": np.array([[5, 9]]),
        "attention_mask": np.ones((1, 2), np.int64),
        "position_ids": np.arange(2)[None],
        **{f"past_key_values.{i}.{kind}": zeros for i in range(2) for kind in ("key", "value")},
    }
    names, empty = ("name", "base_model", "source", "license"), ("config", "splits", "headline")
    manifest = Manifest(
        **dict.fromkeys(names, "m"),
        lineage=(),
        environment={"threads": 1},
        **{key: {} for key in empty},
        opset=18,
    )
    write_artifact(
        folder / "artifact",
        graph=graph,
        checkpoint=checkpoint,
        inputs=inputs,
        card="",
        manifest=manifest,
        keep_checkpoint=False,
    )
    return SimpleNamespace(artifact=folder / "artifact", checkpoint=checkpoint, model=model)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory, language_texts):
    """A folder with two tasks over files beside them."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = {
        "choices": [{"question": q, "choices": c, "answer": a} for q, c, a in QUESTIONS],
        "prose": [{"text": text} for text in prose(language_texts)],
    }
    asked = {
        "choices": {
            "output_type": "multiple_choice",
            "doc_to_text": "{{question}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{answer}}",
            "metric_list": [
                {"metric": name, "aggregation": "mean", "higher_is_better": True}
                for name in ("acc", "acc_norm")
            ],
        },
        "prose": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [
                {"metric": name, "aggregation": way, "higher_is_better": False}
                for name, way in (
                    ("word_perplexity", "weighted_perplexity"),
                    ("bits_per_byte", "bits_per_byte"),
                )
            ],
        },
    }
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        files = {"data_files": {"test": str(folder / f"{name}.jsonl")}, "cache_dir": str(folder / "cache")}
        task = {"task": name, "dataset_path": "json", "dataset_kwargs": files, "test_split": "test"}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**task, **asked[name]}))
    return folder


def prose(texts):
    """One within the context, one of several contexts."""
    return [texts[0], " ".join(texts[1:8])]


def requests(*arguments):
    return [SimpleNamespace(args=each) for each in arguments]


def score(model, ids, count):
    """Log-likelihood of the last `count` of `ids`, by torch."""
    with torch.no_grad():
        rows = model(torch.tensor([ids[:-1]])).logits[0, -count:].double().log_softmax(-1)
    return float(rows[torch.arange(count), torch.tensor(ids[-count:])].sum())


def rolled(model, ids, start):
    """Log-likelihood of `ids` after the token `start`: the first context whole, then one token at a time,
    each after as many tokens as fit, but those of a window of lm-eval after those of that window."""
    total = score(model, [start, *ids[:CONTEXT]], min(len(ids), CONTEXT))
    for done in range(CONTEXT, len(ids), CONTEXT):
        count = min(CONTEXT, len(ids) - done)
        total += score(model, ids[done + count - CONTEXT - 1 : done + count], count)
    return total


@pytest.mark.slow
def test_tasks_of_one_s_own(made, tasks, language_texts, tmp_path, capsys):
    out = tmp_path / "tasks.json"
    command = ["lm-eval", str(made.artifact), "--tasks", "choices,prose", "--include", str(tasks)]
    assert main([*command, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "|choices" in said.replace(" ", "")
    assert "bits_per_byte" in said
    told = json.loads(out.read_text())
    assert (told["artifact"], told["limit"]) == ("m", None)
    tokenizer = transformers.AutoTokenizer.from_pretrained(made.checkpoint)

    right = {"acc": [], "acc_norm": []}
    for question, choices, answer in QUESTIONS:
        before = tokenizer(question)["input_ids"]
        whole = [tokenizer(f"{question} {choice}")["input_ids"] for choice in choices]
        scores = np.array([score(made.model, ids, len(ids) - len(before)) for ids in whole])
        right["acc"].append(scores.argmax() == answer)
        right["acc_norm"].append((scores / [len(choice) for choice in choices]).argmax() == answer)
    found = told["tasks"]["choices"]
    assert found["examples"] == len(QUESTIONS)
    for name, each in right.items():
        metric = found["metrics"][f"{name},none"]
        assert metric["value"] == pytest.approx(np.mean(each))
        assert metric["stderr"] == pytest.approx(np.std(each, ddof=1) / math.sqrt(len(each)))
        assert metric["higher_is_better"] is True

    texts = prose(language_texts)
    total = sum(rolled(made.model, tokenizer(text)["input_ids"], 1) for text in texts)
    metrics = told["tasks"]["prose"]["metrics"]
    size = sum(len(text.encode()) for text in texts)
    assert metrics["bits_per_byte,none"]["value"] == pytest.approx(-total / size / math.log(2), rel=1e-5)
    words = sum(len(text.split()) for text in texts)
    assert metrics["word_perplexity,none"]["value"] == pytest.approx(math.exp(-total / words), rel=1e-4)
    assert metrics["bits_per_byte,none"]["higher_is_better"] is False

    assert main([*command, "--out", str(out)]) == 1  # it is not written over
    assert "a file of that name exists" in capsys.readouterr().err
    assert main([*command, "--limit", "1", "--out", str(tmp_path / "one.json")]) == 0
    assert json.loads((tmp_path / "one.json").read_text())["tasks"]["prose"]["examples"] == 1


@pytest.mark.slow
def test_it_answers_as_lm_eval_s_own_class_for_transformers(harness, made, language_texts):
    from lm_eval.models.huggingface import HFLM

    ours = harness.ArtifactLM(made.artifact)
    theirs = HFLM(pretrained=str(made.checkpoint), device="cpu", dtype="float32", batch_size=1)
    long = " ".join(language_texts[:10])  # of several contexts
    asked = requests(
        *((question, f" {choice}") for question, choices, _ in QUESTIONS for choice in choices),
        ("", "the river"),
        ("<|start|>the old", " city"),
        ("trailing spaces  ", "move on"),
        (long, " and again"),
        (long, " under the bridge"),
        ("short", " " + language_texts[0]),
    )
    found, wanted = ours.loglikelihood(asked), theirs.loglikelihood(asked)
    np.testing.assert_allclose([score for score, _ in found], [score for score, _ in wanted], rtol=1e-5)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]
    found, wanted = (lm.loglikelihood_rolling(requests((long,), ("a",))) for lm in (ours, theirs))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)

    texts = [("the old river", 40), (long, 40), ("<|start|>winter", 3)]
    free = requests(*((text, {"until": [], "max_gen_toks": count}) for text, count in texts))
    found, wanted = ours.generate_until(free), theirs.generate_until(free)
    assert found == wanted
    stop = found[0][5:7]  # some text that it writes
    assert stop
    until = requests(("the old river", {"until": ["never", stop], "max_gen_toks": 40}))
    assert ours.generate_until(until) == theirs.generate_until(until) == [found[0].split(stop)[0]]


@pytest.mark.slow
def test_what_it_refuses(harness, made, tasks, tmp_path, monkeypatch, capsys):
    ours = harness.ArtifactLM(made.artifact)
    assert ours.decoder.session.get_session_options().intra_op_num_threads == 1  # as in its times
    with pytest.raises(ConfigError, match="samples"):
        ours.generate_until(requests(("a", {"do_sample": True, "temperature": 0.7})))
    with pytest.raises(ConfigError, match="more new tokens"):
        ours.generate_until(requests(("a", {"max_gen_toks": CONTEXT})))
    with pytest.raises(DataError, match="continuation is longer"):
        ours.loglikelihood(requests(("a", " the" * (CONTEXT + 1))))
    with pytest.raises(ConfigError, match="--limit"):
        harness.run_tasks(made.artifact, ["choices"], 0, tasks, None)
    with pytest.raises(ConfigError, match="--include"):
        harness.run_tasks(made.artifact, ["choices"], None, tmp_path / "none", None)
    with pytest.raises(ConfigError, match="--out"):
        harness.run_tasks(made.artifact, ["choices"], None, tasks, tmp_path / "none" / "tasks.json")
    with pytest.raises(ArtifactError, match="no artifact"):
        harness.run_tasks(tmp_path, ["choices"], None, tasks, None)
    (tmp_path / "lost.yaml").write_text((tasks / "prose.yaml").read_text().replace("prose", "lost"))
    assert main(["lm-eval", str(made.artifact), "--tasks", "lost", "--include", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "lm-eval cannot run these tasks" in said
    assert "lost.jsonl" in said


def test_an_unknown_task_and_its_neighbours(harness, monkeypatch):
    known = SimpleNamespace(all_tasks=["arc_easy", "arc_challenge", "hellaswag"])  # all take a minute to read
    monkeypatch.setattr(harness, "TaskManager", lambda **_: known)
    with pytest.raises(ConfigError, match=r"arc_esy[\s\S]*did you mean 'arc_easy'\?"):
        harness._tasks(["hellaswag", "arc_esy"], None)
    with pytest.raises(ConfigError, match="lm-eval ls tasks"):
        harness._tasks(["xyzzy"], None)


def test_numbers_that_are_none(harness):
    """lm-eval writes N/A for an error it cannot tell; JSON has no word for what is not finite."""
    metrics = {
        "alias": "a",
        "ppl,none": math.inf,
        "ppl_stderr,none": "N/A",
        "acc,get": 0.5,
        "acc_stderr,get": 0.1,
    }
    found = {"results": {"a": metrics}, "versions": {"a": 1}, "n-shot": {"a": 0}, "n-samples": {}}
    assert harness.numbers(found)["a"]["metrics"] == {
        "ppl,none": {"value": None, "stderr": None, "higher_is_better": None},
        "acc,get": {"value": 0.5, "stderr": 0.1, "higher_is_better": None},
    }
