"""Language models of every architecture, cut each way: what is left is the model that the config names."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
import transformers

from compress.config.export import GenaiExport
from compress.config.prune import LanguageKeep, LanguagePrune, Scope
from compress.data import load_splits
from compress.errors import ConfigError, GateError, ModelError
from compress.export import export
from compress.models.padding import cut_padding
from compress.models.walk import Walk
from compress.prune import prune, transformer
from compress.prune.reload import check_reload
from compress.prune.tokens import cut_vocabulary
from compress.prune.width import cuts_of, narrow
from compress.stages.result import read_result
from compress.tasks.language_modeling import calibration
from compress.tasks.language_modeling.calibration import (
    Windows,
    calibration_windows,
    divergences,
    last_hidden,
)
from compress.tasks.language_modeling.model import CausalLM
from tests.conftest import LANGUAGE

TEXT = "The old river runs slowly under the city."


@pytest.fixture
def no_fresh_process(monkeypatch):
    """Two tests are about it; it takes seconds."""
    monkeypatch.setattr(transformer, "check_reload", lambda model, out: None)


def config(vocabulary=None, ffn=1.0, heads=1.0, layers=1.0, importance="fisher", **changes):
    defaults = {"round_to": 8, "calibration_tokens": 512, "protect_first": 0, "protect_last": 0}
    return LanguagePrune(
        vocabulary=vocabulary,
        keep=LanguageKeep(ffn=ffn, heads=heads, layers=layers),
        importance=importance,
        **{**defaults, **changes},
    )


def ids_of(model, text=TEXT):
    return torch.tensor([model.tokenize(text)])


@torch.no_grad()
def logits(model, text=TEXT):
    return model.run({"input_ids": ids_of(model, text)})


@torch.no_grad()
def stock(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()


@pytest.mark.parametrize("name", LANGUAGE)
def test_every_cut_gives_a_model_that_stock_transformers_loads(
    name, language_checkpoints, splits_folder, tmp_path, no_fresh_process
):
    before = CausalLM.open(language_checkpoints[name])
    heads = 1.0 if before.architecture.whole_heads else 0.5
    chosen = config(vocabulary=288, ffn=0.5, heads=heads, layers=0.5)
    prune(chosen, language_checkpoints[name], splits_folder, tmp_path)
    after = CausalLM.open(tmp_path)
    left, layers = before.kv_heads * heads, len(before.stack.blocks) // 2
    assert after.widths() == {"ffn": (32,) * layers, "kv_heads": (left,) * layers, "vocabulary": (288,)}
    assert after.head_dim == before.head_dim
    opened = stock(tmp_path)
    assert opened.get_input_embeddings().weight is opened.get_output_embeddings().weight
    with torch.no_grad():
        assert torch.equal(opened(ids_of(after)).logits, logits(after))
        runs = [
            opened.generate(
                ids_of(after), use_cache=cache, do_sample=False, min_new_tokens=8, max_new_tokens=8
            )
            for cache in (True, False)
        ]
    assert torch.equal(*runs)
    assert len(after.facts.kept_tokens) == 288
    assert len(after.facts.kept_layers) == layers
    summary = read_result(tmp_path).facts["pruning"]
    assert summary["before"]["ffn"] == [64] * 2 * layers
    assert summary["after"]["ffn"] == [32] * layers
    assert summary["bytes_per_token"]["before"]["counted"] >= summary["bytes_per_token"]["after"]["counted"]
    assert {*summary["dropped_layers"]} == {*range(2 * layers)} - {*after.facts.kept_layers}


@pytest.mark.parametrize("name", ["llama", "phi3"])
def test_keeping_everything_changes_no_bit(
    name, language_checkpoints, splits_folder, tmp_path, no_fresh_process
):
    prune(config(), language_checkpoints[name], splits_folder, tmp_path)
    assert torch.equal(logits(CausalLM.open(tmp_path)), logits(CausalLM.open(language_checkpoints[name])))


@pytest.mark.slow
def test_the_gate_opens_and_generates_in_a_fresh_process(language_checkpoints, splits_folder, tmp_path):
    prune(config(288, 0.5, 0.5, 0.5), language_checkpoints["smollm3"], splits_folder, tmp_path)
    assert read_result(tmp_path).gates[0].numbers["max_abs_diff"] < 1e-6


@pytest.mark.slow
def test_the_gate_finds_another_model(language_checkpoints, copy_of):
    folder = copy_of(language_checkpoints["llama"])
    model = CausalLM.open(folder)
    with torch.no_grad():
        model.module.model.layers[1].mlp.down_proj.weight[0, 0] += 0.5
    with pytest.raises(GateError, match="max abs difference 0"):
        check_reload(model, folder)


# ---------------------------------------------------------------- vocabulary


def test_logits_of_kept_tokens_are_those_of_before(language_checkpoints, language_texts, tmp_path):
    model, dense = (CausalLM.open(language_checkpoints["qwen2"]) for _ in range(2))
    (tmp_path / "files").mkdir()
    kept = cut_vocabulary(model, [TEXT] * 9 + language_texts, 300, tmp_path / "files")
    assert len(kept) == 300
    new = {old: number for number, old in enumerate(kept)}
    wanted = ids_of(dense)
    assert all(int(old) in new for old in wanted[0])  # so that both encode it alike
    assert ids_of(model)[0].tolist() == [new[int(old)] for old in wanted[0]]
    assert torch.equal(logits(model), logits(dense)[..., list(kept)])


def test_ends_and_marks_are_renumbered_everywhere(language_published, language_texts, copy_of, tmp_path):
    """With the special tokens at the end, as Qwen and LLaMA 3 have them, and two ends."""
    from compress.config.model import CausalLMModel
    from compress.tasks import import_model

    folder = copy_of(language_published["llama"])
    content = json.loads((folder / "tokenizer.json").read_text())
    size = len(content["model"]["vocab"])
    extra = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    for i, mark in enumerate(("<|im_end|>", "<|tool|>")):
        content["added_tokens"].append({"id": size + i, "content": mark, **extra})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").unlink()
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    module = transformers.AutoModelForCausalLM.from_pretrained(folder)
    module.resize_token_embeddings(size + 8, mean_resizing=False)  # rows that no token has, as of Qwen
    module.generation_config.eos_token_id = [0, size]
    module.config.eos_token_id = size
    module.save_pretrained(folder)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|im_end|>", bos_token="<|im_start|>"
    )
    fast.chat_template = "{% for m in messages %}<|tool|>{{ m['content'] }}<|im_end|>{% endfor %}"
    fast.save_pretrained(folder)
    for name in ("loaded", "cut", "files"):
        (tmp_path / name).mkdir()
    import_model(CausalLMModel(source=f"path:{folder}"), tmp_path / "loaded")
    model = CausalLM.open(tmp_path / "loaded")
    kept = cut_vocabulary(model, language_texts, 280, tmp_path / "files")
    model.save(tmp_path / "cut", model.facts)
    after = CausalLM.open(tmp_path / "cut")
    end = kept.index(size)
    assert after.tokenizer.eos_token_id == end == after.config.eos_token_id
    assert stock(tmp_path / "cut").generation_config.eos_token_id == [0, end]
    assert after.tokenizer.convert_tokens_to_ids("<|tool|>") == kept.index(size + 1)
    talk = [{"role": "user", "content": "the river"}]
    ids = after.tokenizer.apply_chat_template(talk, return_dict=False)
    assert ids[0] == kept.index(size + 1)
    assert ids[-1] == end
    assert after.tokenizer.decode(ids) == "<|tool|>the river<|im_end|>"


def test_a_vocabulary_below_the_special_tokens(language_checkpoints, splits_folder, tmp_path):
    with pytest.raises(ConfigError, match=r"prune\.vocabulary leaves no room.*\n.*100\n.*at least 258"):
        prune(config(vocabulary=100), language_checkpoints["llama"], splits_folder, tmp_path)


def test_a_tokenizer_without_merges(language_checkpoints, splits_folder, copy_of, tmp_path):
    folder = copy_of(language_checkpoints["llama"])
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="BPE without merges"):
        prune(config(vocabulary=280), folder, splits_folder, tmp_path / "out")


# ---------------------------------------------------------------- width


def cut(model, chosen, windows):
    cuts = [cut for cut in cuts_of(model.stack, chosen) if cut.share < 1.0]
    narrow(model, cuts, chosen, Windows(model, windows))


def windows_of(model, splits):
    return calibration_windows(model, splits.calibration.texts, 512)


def test_every_corpus_has_the_same_part(language_checkpoints):
    model = CausalLM.open(language_checkpoints["llama"])
    texts, corpora = ["q" * 5000, "x" * 60, "z" * 5000, "q" * 5000], ["long", "short", "other", "long"]
    windows = calibration_windows(model, texts, 512 * 9, corpora)
    of = [model.tokenizer.decode(window[256:258])[0] for window in windows]
    assert of == list("zqzqzqzqz")  # less than a window is short: the others give its part
    assert len(calibration_windows(model, texts[:2], 512 * 9, corpora[:2])) == 9
    assert calibration_windows(model, texts[1:2], 512).shape == (1, len(model.tokenize(texts[1] + "\n")))


@pytest.mark.parametrize("importance", ["fisher", "obs", "wanda", "magnitude"])
def test_without_repair_channels_are_as_they_were(importance, language_checkpoints, splits):
    """The small layer equals the large one with the other channels silenced."""
    before, after = (CausalLM.open(language_checkpoints["qwen3"]) for _ in range(2))
    cut(after, config(ffn=0.5, importance=importance, repair=False), windows_of(after, splits))
    for old, new in zip(before.module.model.layers, after.module.model.layers, strict=True):
        rows = kept_rows(old, new)
        assert len(rows) == 32
        assert rows == sorted(rows)
        assert torch.equal(old.mlp.gate_proj.weight[rows], new.mlp.gate_proj.weight)
        assert torch.equal(old.mlp.down_proj.weight[:, rows], new.mlp.down_proj.weight)


def test_a_group_of_heads_goes_as_one(language_checkpoints, splits):
    before, after = (CausalLM.open(language_checkpoints["qwen2"]) for _ in range(2))
    cut(after, config(heads=0.5, repair=False), windows_of(after, splits))
    for old, new in zip(before.module.model.layers, after.module.model.layers, strict=True):
        (group,) = [
            g
            for g in (0, 1)
            if torch.equal(old.self_attn.k_proj.weight[16 * g :][:16], new.self_attn.k_proj.weight)
        ]
        query = slice(32 * group, 32 * group + 32)  # two heads of 16 share it
        assert torch.equal(old.self_attn.q_proj.weight[query], new.self_attn.q_proj.weight)
        assert torch.equal(old.self_attn.q_proj.bias[query], new.self_attn.q_proj.bias)
        assert torch.equal(old.self_attn.v_proj.bias[16 * group :][:16], new.self_attn.v_proj.bias)
        assert torch.equal(old.self_attn.o_proj.weight[:, query], new.self_attn.o_proj.weight)
    assert (after.config.num_attention_heads, after.config.num_key_value_heads) == (2, 1)


def kept_rows(old, new):
    return [
        next(i for i in range(64) if torch.equal(old.mlp.up_proj.weight[i], row))
        for row in new.mlp.up_proj.weight
    ]


@torch.no_grad()
def test_the_repair_is_the_least_squares_of_numpy(language_checkpoints, splits):
    """Of both layers: of what the dense model feeds it, to what it gives there."""
    before, after = (CausalLM.open(language_checkpoints["mistral"]) for _ in range(2))
    windows = windows_of(after, splits)
    cut(after, config(ffn=0.5, damping=1e-12), windows)
    for old, new in zip(before.module.model.layers, after.module.model.layers, strict=True):
        seen = []
        handle = old.mlp.down_proj.register_forward_hook(
            lambda _, args, out, s=seen: s.append((args[0], out))
        )
        for window in windows:
            before.run({"input_ids": window[None]})
        handle.remove()
        h, y = (torch.cat(each, 1)[0].double().numpy() for each in zip(*seen, strict=True))
        expected = np.linalg.lstsq(h[:, kept_rows(old, new)], y, rcond=None)[0].T
        assert np.abs(new.mlp.down_proj.weight.numpy() - expected).max() < 1e-4 * np.abs(expected).max()


def test_least_squares_comes_nearer_to_dense(language_checkpoints, splits):
    """On other texts, by half of the channels of a random model, which have little in common."""
    errors = {}
    for repair in (True, False):
        before, after = (CausalLM.open(language_checkpoints["llama"]) for _ in range(2))
        cut(
            after,
            config(ffn=0.5, importance="wanda", repair=repair),
            calibration_windows(after, splits.train.texts, 8192),
        )
        texts = " ".join(splits.test.texts)
        errors[repair] = float((logits(after, texts) - logits(before, texts)).pow(2).mean())
    assert errors[True] < 0.9 * errors[False]


@pytest.mark.parametrize("name", ["llama", "phi3"])
def test_in_the_global_scope_each_layer_has_its_own_width(
    name, language_checkpoints, splits_folder, tmp_path, no_fresh_process
):
    """The layer that writes little gives most channels, and what is exported has as many as are left."""
    folder, cut, graph = (tmp_path / each for each in ("quiet", "cut", "graph"))
    for each in (folder, cut, graph):
        each.mkdir()
    quiet = CausalLM.open(language_checkpoints[name])
    with torch.no_grad():
        quiet.module.model.layers[1].mlp.down_proj.weight *= 0.1
    quiet.save(folder, quiet.facts)
    prune(config(ffn=0.625, scope=Scope["global"]), folder, splits_folder, cut)
    after = CausalLM.open(cut)
    assert after.widths()["ffn"] == (64, 16)  # 40 each, in sum; none below half of it, in steps of 8
    assert "global, least squares): ffn 64 to 16-64 (mean 40)" in after.facts.lineage[-1]
    torch.testing.assert_close(stock(cut)(ids_of(after)).logits, logits(after))
    export(GenaiExport(), cut, splits_folder, graph)
    fused = onnx.load(graph / "model.onnx").graph
    reads = {each.name: tuple(each.dims) for each in fused.initializer if "down_proj" in each.name}
    assert [*reads.values()] == [(64, after.config.hidden_size), (16, after.config.hidden_size)]
    noted = {each.name: each.type.tensor_type.shape.dim for each in fused.value_info}
    inner = [noted[f"/model/layers.{layer}/mlp/Mul/output_0"][-1].dim_value for layer in (0, 1)]
    assert inner == [64, 16]  # the builder would note one width, and onnxruntime warn of it


def test_in_the_global_scope_the_share_is_of_the_layers_that_stay(
    language_checkpoints, splits_folder, tmp_path, no_fresh_process
):
    chosen = config(ffn=0.5, layers=0.5, scope=Scope["global"])
    prune(chosen, language_checkpoints["qwen2"], splits_folder, tmp_path)
    assert CausalLM.open(tmp_path).widths()["ffn"] == (32,)


def test_what_has_widths_of_its_own_is_not_cut_again(language_checkpoints, splits_folder, tmp_path):
    model = CausalLM.open(language_checkpoints["llama"])
    with torch.no_grad():
        for linear in model.module.model.layers[0].mlp.children():
            if isinstance(linear, torch.nn.Linear):
                linear.weight.zero_()
    cut_padding(model.stack, {"ffn_widths": [24, 64]})
    model.save(tmp_path, model.facts)
    with pytest.raises(ModelError, match=r"widths of their own already\n.*24 to 64\n"):
        prune(config(ffn=0.5), tmp_path, splits_folder, tmp_path / "out")


def test_the_corpora_of_the_texts_balance_the_calibration(
    language_checkpoints, splits_folder, tmp_path, monkeypatch, no_fresh_process
):
    found = load_splits(splits_folder)
    named = replace(
        found,
        **{
            name: replace(split, domains=(name,) * len(split.texts))
            for name in ("calibration", "train")
            for split in [getattr(found, name)]
        },
    )
    monkeypatch.setattr(calibration, "load_texts", lambda folder: named)
    seen = []
    monkeypatch.setattr(
        calibration,
        "calibration_windows",
        lambda model, texts, tokens, corpora: (
            seen.append((texts, corpora)) or calibration_windows(model, texts, tokens, corpora)
        ),
    )
    prune(config(ffn=0.5), language_checkpoints["llama"], splits_folder, tmp_path)
    texts = (*found.calibration.texts, *found.train.texts)
    corpora = ("calibration",) * len(found.calibration.texts) + ("train",) * len(found.train.texts)
    assert seen == [(texts, corpora)]


def test_only_fisher_information_compares_layers():
    with pytest.raises(ConfigError, match=r"^scope=global compares.*\n.*obs\n.*fisher"):
        config(ffn=0.5, importance="obs", scope=Scope["global"])


@pytest.mark.parametrize(
    ("change", "said"), [({"ffn": 0.005}, r"keep\.ffn leaves"), ({"heads": 0.2}, r"keep\.heads leaves")]
)
def test_a_share_that_leaves_nothing(change, said, language_checkpoints, splits_folder, tmp_path):
    with pytest.raises(ConfigError, match=said):
        prune(config(**change), language_checkpoints["llama"], splits_folder, tmp_path)


def test_fused_heads_cannot_be_cut(language_checkpoints, splits_folder, tmp_path):
    with pytest.raises(ModelError, match="heads of a phi3 model"):
        prune(config(heads=0.5), language_checkpoints["phi3"], splits_folder, tmp_path)


def test_heads_that_do_not_divide(language_checkpoints, splits_folder, copy_of, tmp_path):
    folder = copy_of(language_checkpoints["llama"])
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**described, "num_key_value_heads": 3}))
    with pytest.raises(ModelError, match="do not divide"):
        prune(config(heads=0.5), folder, splits_folder, tmp_path / "out")


# ---------------------------------------------------------------- depth


def test_the_layer_dropped_is_the_one_whose_absence_changes_answers_least(
    language_checkpoints, splits, splits_folder, tmp_path, no_fresh_process
):
    dense = CausalLM.open(language_checkpoints["gemma3_text"])
    windows = windows_of(dense, splits)
    wanted = {}
    for index in (0, 1):  # by whole models, and torch's own distributions
        other = CausalLM.open(language_checkpoints["gemma3_text"])
        other.stack.drop_layer(index)
        with torch.no_grad():
            kl = [
                torch.distributions.kl_divergence(
                    *(
                        torch.distributions.Categorical(logits=m.run({"input_ids": w[None]}).double())
                        for m in (dense, other)
                    )
                ).mean()
                for w in windows
            ]
        wanted[index] = float(torch.stack(kl).mean())
    with torch.no_grad():
        found = divergences(Walk(dense, windows), last_hidden(Walk(dense, windows)), [0, 1])
    assert found == pytest.approx(wanted, rel=1e-3)
    prune(config(layers=0.5), language_checkpoints["gemma3_text"], splits_folder, tmp_path)
    (dropped,) = read_result(tmp_path).facts["pruning"]["dropped_layers"]
    assert dropped == min(wanted, key=wanted.__getitem__)


def test_what_is_kept_for_each_layer_follows_it(language_checkpoints):
    model = CausalLM.open(language_checkpoints["smollm3"])
    model.config.no_rope_layers = [1, 0, 1, 1]
    model.config.layer_types = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
    model.stack.drop_layer(1)
    assert model.config.num_hidden_layers == 3
    assert model.config.no_rope_layers == [1, 1, 1]
    assert model.config.layer_types == ["sliding_attention", "full_attention", "sliding_attention"]
    assert [layer.self_attn.layer_idx for layer in model.module.model.layers] == [0, 1, 2]


@torch.no_grad()
def test_a_layer_left_out_leaves_the_others_their_windows(language_checkpoints):
    """As the checkpoint without it, which knows of each layer whether it is local."""
    model, dropped = (CausalLM.open(language_checkpoints["olmo3"]) for _ in range(2))
    dropped.stack.drop_layer(0)
    kinds = list(model.config.layer_types)
    with model.stack.without_layer(0):
        assert torch.equal(logits(model), logits(dropped))
    assert model.config.layer_types == kinds


def test_protected_layers_cannot_all_stay(language_checkpoints, splits_folder, tmp_path):
    chosen = config(layers=0.5, protect_first=2, protect_last=1)
    with pytest.raises(ConfigError, match=r"drops more layers than may go\n.*1 of 2\n.*at most 0"):
        prune(chosen, language_checkpoints["llama"], splits_folder, tmp_path)
