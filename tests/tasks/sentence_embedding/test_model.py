"""Loading, saving and running of encoders, against stock transformers and hand-written pooling."""

import json

import numpy as np
import pytest
import torch
import transformers

from compress import tasks
from compress.config.model import EncoderModel
from compress.errors import ModelError
from compress.schema.workload import Workload
from compress.tasks import open_processor

ARCHITECTURES = ("bert", "roberta", "distilbert", "mpnet")
HEADED = ("bert", "roberta", "distilbert")
MODULES = "sentence_transformers.models."


@pytest.fixture
def texts(splits):
    return splits.test.texts[:6]


def embed(encoder, texts):
    with torch.no_grad():
        return encoder.module(**encoder.tokenize(texts))["sentence_embedding"]


def states(module, encoder, texts):
    with torch.no_grad():
        return module(**encoder.tokenize(texts)).last_hidden_state


def stock(folder):
    return transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()


def write_pooling(folder, modules, **modes):
    paths = ["", *(f"{i}_{m}" for i, m in enumerate(modules[1:], 1))]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": MODULES + m}
        for i, (path, m) in enumerate(zip(paths, modules, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    settings = {"word_embedding_dimension": 32, **{f"pooling_mode_{k}": on for k, on in modes.items()}}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_computes_what_stock_transformers_computes(name, published, checkpoints, texts):
    encoder = tasks.load(checkpoints[name])
    torch.testing.assert_close(
        states(encoder.module.backbone, encoder, texts),
        states(stock(published[name]), encoder, texts),
        atol=1e-6,
        rtol=0,
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_saved_encoder_reloads_bit_equal(name, checkpoints, texts, tmp_path):
    encoder = tasks.load(checkpoints[name])
    encoder.save(tmp_path / "again", encoder.facts.after("saved"))
    again = tasks.load(tmp_path / "again")
    assert torch.equal(embed(encoder, texts), embed(again, texts))
    assert again.facts.lineage == ("saved",)
    assert again.facts.license == "unknown"
    assert again.widths() == encoder.widths() == {"ffn": (64, 64), "heads": (4, 4)}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_eager_and_fused_attention_agree(name, checkpoints, texts):
    eager, fused = (tasks.load(checkpoints[name], attention=kind) for kind in ("eager", "sdpa"))
    torch.testing.assert_close(embed(eager, texts), embed(fused, texts), atol=1e-6, rtol=0)


def test_a_checkpoint_names_no_place_on_this_machine(checkpoints, published):
    for name, folder in checkpoints.items():
        for path in folder.rglob("*.json"):
            if path.name != "compress.json":  # says where the model came from
                assert str(published[name].parent) not in path.read_text(), path


def test_importing_twice_gives_equal_weights_without_a_pooler(published, copy_of, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = copy_of(published["bert"])
    kept = {k: v for k, v in load_file(folder / "model.safetensors").items() if "pooler" not in k}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    for out in ("first", "second"):
        tasks.import_model(EncoderModel(source=f"path:{folder}"), tmp_path / out)
    first, second = ((tmp_path / out / "model.safetensors").read_bytes() for out in ("first", "second"))
    assert first == second


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("mode", ["mean", "cls"])
@pytest.mark.parametrize("normalize", [True, False])
def test_pooling_by_hand(name, mode, normalize, published, copy_of, texts, tmp_path):
    folder = copy_of(published[name])
    modules = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    write_pooling(folder, modules, mean_tokens=mode == "mean", cls_token=mode == "cls", max_tokens=False)
    tasks.import_model(EncoderModel(source=f"path:{folder}"), tmp_path / "out")
    encoder = tasks.load(tmp_path / "out")  # the pooling has to survive the import
    hidden = states(stock(published[name]), encoder, texts).double().numpy()
    lengths = encoder.tokenize(texts)["attention_mask"].sum(1)
    expected = np.stack(
        [
            row[0] if mode == "cls" else row[:n].mean(0)
            for row, n in zip(hidden, lengths.tolist(), strict=True)
        ]
    )
    if normalize:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(embed(encoder, texts).numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_padding_does_not_change_an_embedding(name, checkpoints, texts):
    encoder = tasks.load(checkpoints[name])
    alone = torch.cat([embed(encoder, [text]) for text in texts])
    assert len({encoder.tokenize([text])["input_ids"].shape for text in texts}) > 1
    torch.testing.assert_close(embed(encoder, texts), alone, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", HEADED)
@pytest.mark.parametrize("change", ["heads", "ffn", "layers", "layers+heads", "layers+heads+ffn"])
def test_stock_transformers_loads_a_uniformly_pruned_checkpoint(name, change, checkpoints, texts, tmp_path):
    from compress.config.prune import Keep, TransformerPrune
    from tests.prune.cuts import cut_channels, cut_heads, drop, texts_of

    keep = dict.fromkeys(change.split("+"), 0.5)
    config = TransformerPrune(keep=Keep(**keep), round_to=8)
    encoder = tasks.load(checkpoints[name])
    data = texts_of(encoder, texts)
    if "layers" in keep:
        drop(data, 0.5)
    if "heads" in keep:
        cut_heads(data, config)
    if "ffn" in keep:
        cut_channels(data, config)
    encoder.save(tmp_path / "small", encoder.facts)
    depth = 1 if "layers" in keep else 2
    expected = {
        "ffn": (32 if "ffn" in keep else 64,) * depth,
        "heads": (2 if "heads" in keep else 4,) * depth,
    }
    assert encoder.widths() == tasks.load(tmp_path / "small").widths() == expected
    torch.testing.assert_close(
        states(stock(tmp_path / "small"), encoder, texts),
        states(encoder.module.backbone, encoder, texts),
        atol=1e-6,
        rtol=0,
    )


# ---------------------------------------------------------------- numbers and inputs


def test_parameters_and_macs_by_hand(checkpoints):
    encoder = tasks.load(checkpoints["distilbert"])
    tables = (46 + 66) * 32 + 2 * 32
    layer = 4 * (32 * 32 + 32) + 2 * 32 * 64 + 64 + 32 + 2 * 2 * 32
    assert encoder.parameters() == tables + 2 * layer
    assert encoder.macs(10) == 2 * (10 * (4 * 32 * 32 + 2 * 32 * 64) + 2 * 10 * 10 * 32)


def test_a_pooler_counts_for_nothing(checkpoints):
    encoder = tasks.load(checkpoints["bert"])
    everything = sum(p.numel() for p in encoder.module.parameters())
    assert everything - encoder.parameters() == 32 * 32 + 32


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("batch", "tokens"), [(1, 16), (3, 48), (8, 64)])
def test_workloads_have_exactly_the_shape_asked_for(name, batch, tokens, checkpoints, texts):
    inputs = open_processor(checkpoints[name]).workload(texts, Workload(batch, tokens))
    assert {array.shape for array in inputs.values()} == {(batch, tokens)}
    assert {array.dtype for array in inputs.values()} == {np.dtype(np.int64)}
    ids = inputs["input_ids"]
    assert inputs["attention_mask"].all()
    assert (ids[:, 0] == 0).all()
    assert (ids[:, -1] == 2).all()
    assert not (ids == 1).any()  # no padding


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_texts_are_cut_where_positions_or_sentence_transformers_end(name, checkpoints, copy_of):
    folder = copy_of(checkpoints[name])
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": int(1e30)}))
    positions = 66 if name in ("bert", "distilbert") else 64
    encoder, long = tasks.load(folder), ["river " * 200]
    assert encoder.processor.max_length == positions
    assert encoder.tokenize(long)["input_ids"].shape == (1, positions)
    assert torch.isfinite(embed(encoder, long)).all()
    write_pooling(folder, ["Transformer", "Pooling"], mean_tokens=True)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    assert tasks.load(folder).tokenize(long)["input_ids"].shape == (1, 12)
    assert tasks.load(folder).tokenize(long, max_length=40)["input_ids"].shape == (1, 12)


def test_batches_hold_every_text_once(checkpoints, splits):
    encoder = tasks.load(checkpoints["bert"])
    rows = [
        tuple(ids[mask.bool()].tolist())
        for batch in encoder.batches(splits.test.texts, 7)
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    stock = transformers.AutoTokenizer.from_pretrained(str(checkpoints["bert"]))
    expected = [tuple(stock(text)["input_ids"]) for text in splits.test.texts]
    assert sorted(rows) == sorted(expected)


# ---------------------------------------------------------------- what cannot be loaded


def refused(folder, out, *words):
    with pytest.raises(ModelError) as caught:
        tasks.import_model(EncoderModel(source=f"path:{folder}"), out)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_unknown_architecture(published, copy_of, tmp_path):
    folder = copy_of(published["bert"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "robert"}))
    refused(folder, tmp_path / "out", "architecture", "robert", "allowed", "did you mean 'roberta'")


@pytest.mark.parametrize("content", ["{", "[]"])
def test_malformed_config(content, published, copy_of, tmp_path):
    folder = copy_of(published["bert"])
    (folder / "config.json").write_text(content)
    refused(folder, tmp_path / "out", "config.json", "found")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"intermediate_size": 48}, "do not fit their config.json"),
        ({"hidden_size": 24}, "do not fit their config.json"),
        ({"hidden_act": "none"}, "makes no model of config.json"),
    ],
)
def test_weights_that_do_not_fit_the_config(changes, said, published, copy_of, tmp_path):
    folder = copy_of(published["bert"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    refused(folder, tmp_path / "out", said, "found", "allowed")


@pytest.mark.parametrize(
    ("depth", "words"), [(3, "weights are missing"), (1, "layers its config.json lacks")]
)
def test_another_number_of_layers_than_the_config_says(depth, words, published, copy_of, tmp_path):
    folder = copy_of(published["bert"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": depth}))
    refused(folder, tmp_path / "out", words, "tensors, e.g. encoder.layer.", "allowed")


def test_missing_tensors(published, copy_of, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = copy_of(published["mpnet"])
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    refused(folder, tmp_path / "out", "missing", "1 tensors", "layer.1.output.dense.weight")


def test_a_module_that_is_not_exported(published, copy_of, tmp_path):
    folder = copy_of(published["bert"])
    write_pooling(folder, ["Transformer", "Pooling", "LayerNorm"], mean_tokens=True)
    refused(folder, tmp_path / "out", "LayerNorm", "allowed", "Transformer, Pooling, Dense, Normalize")


def test_malformed_pooling(published, copy_of, tmp_path):
    folder = copy_of(published["bert"])
    write_pooling(folder, ["Transformer", "Pooling"], mean_tokens=True)
    (folder / "1_Pooling" / "config.json").write_text("{")
    refused(folder, tmp_path / "out", "not JSON")


@pytest.mark.parametrize("architecture", ["bert", "roberta", "mpnet"])
def test_no_tokenizer(architecture, published, copy_of, tmp_path):
    """transformers 5 makes one up that knows its special tokens alone, or fails with a bare Exception."""
    folder = copy_of(published[architecture])
    for path in folder.glob("*token*.json"):
        path.unlink()
    refused(folder, tmp_path / "out", "tokenizer", "found", "allowed")


def test_a_tokenizer_that_cannot_pad(published, copy_of, tmp_path):
    folder = copy_of(published["bert"])
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "pad_token": None}))
    refused(folder, tmp_path / "out", "cannot pad", "no pad token")
