"""Our checkpoints, tokenizers and generation in transformers 4.57 and 5, each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from compress import models, tasks
from compress.config.model import CausalLMModel, EncoderModel, ImageClassifierModel
from compress.models.compat import write_for_both
from compress.models.tokenizer import Tokenizer
from compress.prune import prune
from compress.tasks import import_model
from tests.conftest import write_language, write_net, write_published
from tests.models import stock, written_by_4
from tests.prune.cuts import config

BASE = {"rope_type": "default", "rope_theta": 300.0}  # what 4.57 would take is 10000
LOCAL = {"rope_type": "default", "rope_theta": 50.0}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
ROPES = {
    "modernbert": {"full_attention": BASE, "sliding_attention": LOCAL},
    "llama": {**BASE, "rope_type": "llama3", "factor": 8.0, **LLAMA3},
    "qwen3": {**BASE, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "gemma3_text": {
        "full_attention": {**BASE, "rope_type": "linear", "factor": 4.0},
        "sliding_attention": LOCAL,
    },
    "olmo3": {
        "full_attention": {
            **BASE,
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        "sliding_attention": BASE,
    },
    "phi3": {
        **BASE,
        "rope_type": "longrope",
        "short_factor": [1 + i / 8 for i in range(8)],
        "long_factor": [2.0 + i for i in range(8)],
        "partial_rotary_factor": 1.0,
    },
}
ENCODERS = ("bert", "roberta", "distilbert", "mpnet", "modernbert")
LANGUAGE = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "smollm3", "phi3", "olmo2", "olmo3", "exaone4"),
    *("granite", "ernie4_5", "hunyuan_v1_dense", "seed_oss", "arcee"),
)
PRUNED = ("pruned-bert", "pruned-distilbert", "pruned-vit", "pruned-llama", "pruned-gemma3_text")
MADE = (*ENCODERS, *LANGUAGE, "vit", *PRUNED)
AUTO = {
    "sentence_embedding": "AutoModel",
    "image_classification": "AutoModelForImageClassification",
    "language_modeling": "AutoModelForCausalLM",
}
OPTIONS = {
    "sentence_embedding": EncoderModel,
    "image_classification": ImageClassifierModel,
    "language_modeling": CausalLMModel,
}


def transformers4() -> str:
    """A Python with transformers 4.57."""
    made = Path(__file__).parents[2] / ".venv-transformers4" / "bin" / "python"
    python = os.environ.get("TRANSFORMERS4_PYTHON", str(made))
    assert Path(python).is_file(), f"no {python}: make setup-transformers4"
    return python


def run(python, script, *arguments):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [python, script.__file__, *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, env={**environment, "HF_HUB_OFFLINE": "1"})


def seen(python, version, folders, out):
    """Name of a folder -> what stock transformers makes of it."""
    jobs = []
    for name, folder in folders.items():
        task = models.read_facts(folder[0]).task
        inputs = models.read_check_inputs(folder[0])
        if task == "language_modeling":
            inputs = {"input_ids": inputs["input_ids"], "attention_mask": np.ones_like(inputs["input_ids"])}
        np.savez(out / f"{name}-inputs.npz", **inputs)
        paths = {"inputs": f"{name}-inputs.npz", "out": f"{name}-{version}.npz"}
        jobs.append(
            {"folder": str(folder[1]), "auto": AUTO[task]} | {k: str(out / p) for k, p in paths.items()}
        )
    (out / f"{version}.json").write_text(json.dumps(jobs))
    run(python, stock, out / f"{version}.json")
    return {name: dict(np.load(job["out"])) for name, job in zip(folders, jobs, strict=True)}


def assert_same(found, wanted, names=None):
    assert [str(each["error"]) for each in (found, wanted) if "error" in each] == []
    if names is None:
        assert found.keys() == wanted.keys()
    for name in names or wanted:
        if wanted[name].dtype.kind == "f":
            np.testing.assert_allclose(found[name], wanted[name], atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


# ---------------------------------------------------------------- written by us


def make(folder, name, texts, splits_folder, image_splits_folder):
    """A checkpoint of ours: the published model, or, of what is called pruned, one cut unevenly by layer."""
    published, dense = folder / "published", folder / "dense"
    published.mkdir()
    dense.mkdir()
    kind = name.removeprefix("pruned-")
    if kind == "vit":
        write_net(published, kind)
        option = ImageClassifierModel
    elif kind in LANGUAGE:
        write_language(published, kind, texts, rope_parameters=ROPES.get(kind, BASE))
        option = CausalLMModel
    else:
        write_published(published, kind, **({"rope_parameters": ROPES[kind]} if kind in ROPES else {}))
        option = EncoderModel
    import_model(option(source=f"path:{published}"), dense)
    if kind == name:
        return dense
    model = tasks.load(dense)
    with torch.no_grad():  # for the layers to be cut unequally
        layers = model.stack.layers()
        layers[0].ffn_out.weight[:, : layers[0].ffn_width * 3 // 4] *= 0.01
        layers[0].attention_output.weight[:, : layers[0].attention_output.in_features * 3 // 4] *= 0.01
        layers[1].attention_output.weight[:, : layers[1].attention_output.in_features // 4] *= 0.01
    for part in ("uneven", "pruned"):
        (folder / part).mkdir()
    model.save(folder / "uneven", model.facts)
    cut = {"vocabulary": 300, "importance": "fisher", "ffn": 0.5} if kind in LANGUAGE else {"ffn": 0.6}
    chosen = config(scope="global", heads=0.5, round_to=1, **cut)
    splits = image_splits_folder if kind == "vit" else splits_folder
    prune(chosen, folder / "uneven", splits, folder / "pruned")
    return folder / "pruned"


@pytest.fixture(scope="module")
def made(tmp_path_factory, language_texts, splits_folder, image_splits_folder):
    root, folders = tmp_path_factory.mktemp("made"), {}
    for name in MADE:
        (root / name).mkdir()
        folder = make(root / name, name, language_texts, splits_folder, image_splits_folder)
        folders[name] = (folder, folder)
    return folders, {
        version: seen(python, version, folders, root)
        for version, python in (("4", transformers4()), ("5", sys.executable))
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_both_read_what_we_write(name, made):
    folders, read = made
    assert_same(read["4"][name], read["5"][name])
    if name in PRUNED:
        widths = tasks.load(folders[name][0]).widths()
        assert len(set(widths["ffn"])) == 2, widths
        described = json.loads((folders[name][0] / "config.json").read_text())
        assert ("head_counts" in described) == ("heads" in widths)


# ---------------------------------------------------------------- written by 4.57

PRUNED_BY_4 = tuple(f"{kind}-pruned" for kind in written_by_4.PRUNED)
FORMER = (*written_by_4.LANGUAGE, *written_by_4.ENCODERS, *written_by_4.IMAGES, *PRUNED_BY_4)


@pytest.fixture(scope="module")
def former(tmp_path_factory):
    """What 4.57 makes of folders that it wrote, and what both make of them when we imported them."""
    root, folders = tmp_path_factory.mktemp("former"), {}
    run(transformers4(), written_by_4, root / "published")
    for name in FORMER:
        kind = name.removesuffix("-pruned")
        option = CausalLMModel if kind in written_by_4.LANGUAGE else EncoderModel
        option = ImageClassifierModel if kind in written_by_4.IMAGES else option
        (imported := root / name).mkdir()
        import_model(option(source=f"path:{root / 'published' / name}"), imported)
        folders[name] = (imported, imported)
    published = {name: (imported, root / "published" / name) for name, (imported, _) in folders.items()}
    return {
        "folders": folders,
        "published": seen(transformers4(), "published", published, root),
        "4": seen(transformers4(), "4", folders, root),
        "5": seen(sys.executable, "5", folders, root),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMER)
@pytest.mark.parametrize("version", ["4", "5"])
def test_what_4_wrote_is_the_same_model_when_imported(version, name, former):
    wanted = former["published"][name]
    read = {"row.0", "row.1", "row.2", "plain", "decoded", "skipped", "marks", "chat", "pixels"}
    given = {"found", "generated", *read}
    assert_same(former[version][name], wanted, given & wanted.keys())


@pytest.mark.slow
@pytest.mark.parametrize("name", PRUNED_BY_4)
def test_heads_that_4_cut_stay_cut(name, former):
    assert tasks.load(former["folders"][name][0]).widths()["heads"] == (2, 3)


# ---------------------------------------------------------------- by hand


def completed(folder, name, content):
    (folder / name).write_text(json.dumps(content))
    write_for_both(folder)
    return json.loads((folder / name).read_text())


def test_bases_of_the_rotation_are_written_both_ways(tmp_path):
    flat = {"model_type": "llama", "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
    assert completed(tmp_path, "config.json", flat) == flat | {"rope_theta": 500.0}
    found = completed(
        tmp_path, "config.json", {"model_type": "gemma3_text", "rope_parameters": ROPES["gemma3_text"]}
    )
    assert (found["rope_theta"], found["rope_local_base_freq"]) == (300.0, 50.0)
    assert found["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    found = completed(
        tmp_path, "config.json", {"model_type": "modernbert", "rope_parameters": ROPES["modernbert"]}
    )
    assert (found["global_rope_theta"], found["local_rope_theta"]) == (300.0, 50.0)
    found = completed(tmp_path, "config.json", {"model_type": "phi3", "rope_parameters": ROPES["phi3"]})
    assert set(found["rope_scaling"]) == {"type", "short_factor", "long_factor"}  # 4.57 refuses a fourth
    assert found["partial_rotary_factor"] == 1.0


def test_settings_of_a_tokenizer_have_no_nulls_but_marks(tmp_path):
    written = {
        "add_prefix_space": None,
        "bos_token": None,
        "tokenizer_class": "GPT2Tokenizer",
        "is_local": True,
    }
    found = completed(tmp_path, "tokenizer_config.json", written | {"extra_special_tokens": ["<|end|>"]})
    assert found == {
        "bos_token": None,
        "tokenizer_class": "GPT2Tokenizer",
        "additional_special_tokens": ["<|end|>"],
    }


def test_spaces_in_front_of_a_stop_stay_in_both(language_published, copy_of):
    """5 leaves them where BPE made the tokens; 4.57 does where the setting says no."""
    folder = copy_of(language_published["llama"])
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "clean_up_tokenization_spaces": True}))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = tokenizer.decode(tokenizer("the river .", add_special_tokens=False)["input_ids"])
    write_for_both(folder)
    assert text == "the river ."
    assert json.loads(path.read_text())["clean_up_tokenization_spaces"] is False
    assert Tokenizer(folder).decode(Tokenizer(folder).plain("the river .")) == text
