"""What processors feed: the same as stock transformers, without torch and without weights."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.errors import ConfigError, DataError, ModelError
from compress.models.tokenizer import Tokenizer, complete
from compress.schema.workload import Workload
from compress.tasks import TASKS, open_processor, task_of

ARCHITECTURES = ("bert", "roberta", "distilbert", "mpnet")


def stock(folder):
    return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_texts_are_read_as_stock_transformers_reads_them(name, checkpoints, splits):
    processor, texts = open_processor(checkpoints[name]), [*splits.test.texts[:9], "", "river " * 90]
    expected = stock(checkpoints[name])(
        texts,
        padding=True,
        truncation=True,
        max_length=processor.max_length,
        return_token_type_ids=True,
        return_tensors="np",
    )
    found = processor.tokenize(texts)
    assert ("token_type_ids" in found) == (name in ("bert", "roberta"))
    assert found.keys() == set(processor.input_names)
    for key, array in found.items():
        assert array.dtype == np.int64
        np.testing.assert_array_equal(array, expected[key])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_any_text_is_read_as_stock_transformers_reads_it(language_checkpoints, texts):
    folder = language_checkpoints["llama"]
    own, theirs = Tokenizer(folder), stock(folder)
    for text in texts:
        expected = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, ends = own.with_ends(text)
        assert ids == own.plain(text) == expected["input_ids"]
        assert ends == [end for _, end in expected["offset_mapping"]]
        assert own.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_truncation_on_the_side_that_the_tokenizer_names(side, checkpoints, copy_of, splits):
    folder = copy_of(checkpoints["bert"])
    path = folder / "tokenizer_config.json"
    sides = {"padding_side": side, "truncation_side": side}
    path.write_text(json.dumps({**json.loads(path.read_text()), **sides}))
    texts = splits.test.texts[:5]
    expected = stock(folder)(texts, padding=True, truncation=True, max_length=9, return_tensors="np")
    found = open_processor(folder).tokenize(texts, 9)
    np.testing.assert_array_equal(found["input_ids"], expected["input_ids"])
    np.testing.assert_array_equal(found["attention_mask"], expected["attention_mask"])


def test_spaces_are_taken_back_where_the_tokenizer_says_so(checkpoints, copy_of):
    folder = copy_of(checkpoints["bert"])
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "clean_up_tokenization_spaces": True}))
    own, theirs = Tokenizer(folder), stock(folder)
    ids = own.plain("the river , and the city .")
    assert own.decode(ids) == theirs.decode(ids, skip_special_tokens=True) == "the river, and the city."


def test_a_tokenizer_whose_settings_change_it_is_written_anew(checkpoints, copy_of):
    """BertTokenizerFast lowers letters where tokenizer_config.json says so, whatever tokenizer.json says."""
    folder = copy_of(checkpoints["bert"])
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "river", "The", "cat", "a"]
    (folder / "vocab.txt").write_text("\n".join(names))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    with pytest.raises(ModelError, match=r"no usable tokenizer .*\n  found:   no tokenizer\.json"):
        Tokenizer(folder)
    complete(folder)
    text = "The River, a cat"
    assert Tokenizer(folder).plain(text) == stock(folder)(text, add_special_tokens=False)["input_ids"]
    cased = json.loads((folder / "tokenizer.json").read_text())
    cased["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(cased))
    assert Tokenizer(folder).plain(text) != stock(folder)(text, add_special_tokens=False)["input_ids"]
    complete(folder)
    assert Tokenizer(folder).plain(text) == stock(folder)(text, add_special_tokens=False)["input_ids"]


def test_a_tokenizer_that_needs_nothing_is_left_as_it_is(checkpoints, copy_of):
    folder = copy_of(checkpoints["roberta"])
    before = (folder / "tokenizer.json").read_bytes()
    complete(folder)
    assert (folder / "tokenizer.json").read_bytes() == before


def test_no_task_needs_torch_or_weights(
    checkpoints, image_checkpoints, language_checkpoints, headed_checkpoints, tmp_path
):
    folders = [image_checkpoints["resnet"], checkpoints["bert"], language_checkpoints["llama"]]
    folders += headed_checkpoints.values()
    assert sorted(map(task_of, folders)) == list(TASKS)
    ignore = shutil.ignore_patterns("*.safetensors")
    bare = [shutil.copytree(folder, tmp_path / folder.name, ignore=ignore) for folder in folders]
    code = (
        "import sys, numpy; from pathlib import Path; from compress.tasks import open_processor\n"
        "from compress.schema.workload import Workload\n"
        "for folder, size in zip(sys.argv[1:], (8, *[16] * len(sys.argv))):\n"
        "    examples = numpy.zeros((2, 8, 8, 1), 'uint8') if size == 8 else ['the river runs', 'a city']\n"
        "    feeds = open_processor(Path(folder)).workload(examples, Workload(2, size))\n"
        "    assert len(next(iter(feeds.values()))) == 2\n"
        "print(sorted({'torch', 'transformers', 'onnx'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code, *bare], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("kind", "workload", "error", "said"),
    [
        (
            "text",
            "1x1+4",
            ConfigError,
            "only language models have cached tokens\n  found:   the workload 1x",
        ),
        ("image", "1x8+4", ConfigError, "only language models have cached tokens"),
        ("image", "1x9", ModelError, "another size than the model's images"),
        ("language", "1x200+100", DataError, "longer than the model's context\n  found:   300 tokens"),
    ],
)
def test_a_workload_that_the_model_cannot_have(
    kind, workload, error, said, checkpoints, image_checkpoints, language_checkpoints
):
    folders = {"text": checkpoints["bert"], "image": image_checkpoints["resnet"]}
    folder = folders.get(kind, language_checkpoints["llama"])
    with pytest.raises(error, match=said):
        open_processor(folder).check(Workload.parse(workload))
