"""Two-layer models of every architecture and a small folder of splits, built once for all tests."""

import functools
import gc
import io
import json
import os
import random
import runpy
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from hypothesis import given, strategies
from onnx import TensorProto
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.onnx._internal.exporter._registration import ONNXRegistry

from compress.benchmark import limits, parity, profile, timing
from compress.config.data import ImageData, ImageFormat, ImageSet, TextData, TextFile
from compress.config.export import GenaiExport, TorchExport
from compress.config.model import CausalLMModel, EncoderModel, ImageClassifierModel
from compress.data import Splits, load_texts, open_splits
from compress.data.images import ImageSplits, load_images
from compress.export import export
from compress.models.checkpoint import Facts
from compress.prune import reload
from compress.runner.with_onnxruntime import OnnxruntimeModel
from compress.tasks import import_model, reading
from compress.tasks.image_classification.model import ImageClassifier
from compress.tasks.image_classification.model import build as build_net
from tests.once import Folders, Once, shared_folder
from tests.zoo.encoders import modules, pools

pytest_plugins = ["tests.runs", "tests.chains", "tests.ssh_server", "tests.heads"]
torch.set_num_threads(1)

SPECIAL = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}
WORDS = [
    "the", "a", "river", "mountain", "city", "train", "winter", "music", "bread", "stone", "old", "new",
    "quiet", "green", "long", "bright", "runs", "falls", "sings", "opens", "under", "over", "near", "and",
    "with", "after", "before", "slowly", "again", "today", "window", "garden", "letter", "child", "market",
    "island", "answers", "waits", "grows", "breaks",
]  # fmt: skip
SIZES = {
    "vocab_size": len(SPECIAL) + len(WORDS) + 2,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "hidden_dim": 64,  # DistilBERT's name of it
    "max_position_embeddings": 66,
    "pad_token_id": 1,
    "initializer_range": 0.25,  # the usual 0.02 leaves a random model nearly linear
}
ARCHITECTURES = (
    *("bert", "roberta", "distilbert", "mpnet", "modernbert", "eurobert", "nomic_bert"),
    *("qwen3", "gemma3_text"),  # language models that embed
)
ENCODER_SIZES: dict[str, dict[str, object]] = {  # where two layers of the above are not all that is there
    "modernbert": {"num_hidden_layers": 4, "local_attention": 6},  # layers 1 and 2 see 3 tokens to each side
    "eurobert": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "gemma3_text": {
        **{"num_hidden_layers": 4, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 9},
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "use_bidirectional_attention": True,
    },
}


def write_tokenizer(folder: Path, **settings: object) -> None:
    names = [*SPECIAL.values(), *WORDS, ".", ","]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, **SPECIAL, **settings
    ).save_pretrained(folder)


def write_published(folder: Path, architecture: str, **changes: object) -> Path:
    """A folder as a hub would serve it, with random weights that the architecture's name seeds."""
    with torch.random.fork_rng():
        torch.manual_seed(ARCHITECTURES.index(architecture))
        sizes = {**SIZES, **ENCODER_SIZES.get(architecture, {}), **changes}
        config = transformers.AutoConfig.for_model(architecture, **sizes)
        model = transformers.AutoModel.from_config(config)
        for name, parameter in model.named_parameters():  # zero biases would hide what forgets them
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(folder)
    last = architecture == "qwen3"  # pools as Qwen3-Embedding does
    write_tokenizer(folder, padding_side="left" if last else "right")
    modules(folder, **(pools("lasttoken") if last else {}))
    return folder


def sentence(rng: random.Random) -> str:
    """Zipf-like words, so that some differ from others in how often they occur."""
    weights = [1 / (rank + 3) for rank in range(len(WORDS))]
    return " ".join(rng.choices(WORDS, weights, k=rng.randint(6, 24))).capitalize() + "."


# A shell starts what it sends to the background with SIGINT ignored, children inherit that, and runs that
# tests interrupt would go on for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make check` runs: models and data come through `once`.

    Modules that look at the finished run come first: each of two workers begins with half of the tests, and
    the other one would wait until the run is finished. Then come whole runs of nets, of 10 s each: the last
    test should be short, for one worker waits for it.
    """
    for item in items:
        if "once" not in getattr(item, "fixturenames", ()) or item.path.name == "test_pipeline.py":
            item.add_marker(pytest.mark.check)
    first = {item.path for item in items if "finished" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: (item.path not in first, item.path.name != "test_vision.py"))


def pytest_collection_finish() -> None:
    """Leave what lives through a collection of all garbage out of later ones: every stage makes one, and what
    torch's exporter imports alone costs 0.1 s each time."""

    def freeze(phase: str, found: dict[str, int]) -> None:
        if phase == "stop" and found["generation"] == 2:
            gc.freeze()

    # Hypothesis looks for who holds its random numbers, once; gc does not name what is frozen.
    given(strategies.none())(lambda _: None)()
    gc.callbacks.append(freeze)
    gc.collect()


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """`once(name, build)`: the folder that `build(folder)` fills, the same for all tests of a session."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all workers; its name is new in each session
    return lambda name, build: shared_folder(root, name, build)


@pytest.fixture(scope="session", autouse=True)
def own_cores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The lock of the machine's cores in a folder of this worker's, else it waits for others' benchmarks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
        patch.setattr(tempfile, "tempdir", None)  # read TMPDIR again
        yield


@pytest.fixture(scope="session", autouse=True)
def limits_measured_once() -> Iterator[None]:
    """What this machine can do does not change between tests, and takes seconds to measure."""
    measure, results = limits.measured, {}

    def measured(target: Any, read_bytes: int) -> dict[str, Any]:
        key = (type(target), repr(target.config))
        if key not in results:
            results[key] = measure(target, read_bytes)
        return results[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "measured", measured)
        yield


@pytest.fixture(scope="session", autouse=True)
def exporter_registered_once() -> Iterator[None]:
    """torch makes its table of ONNX operators anew for every export: a quarter of the time of a tiny one."""
    with pytest.MonkeyPatch.context() as patch:
        once_each = functools.cache(ONNXRegistry.from_torchlib)
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(once_each))
        yield


@pytest.fixture(scope="session", autouse=True)
def outputs_in_this_process() -> Iterator[None]:
    """What a model gives on this machine takes a worker and its imports half a second to say."""
    asked = parity.outputs

    def outputs(target: Any, graph: Path, batches: Any, name: str) -> Any:
        if not parity.is_here(target):
            return asked(target, graph, batches, name)
        model = OnnxruntimeModel({"path": str(graph), "workloads": {}, **target.runs_with()})
        return map(model.compute, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "outputs", outputs)
        yield


@pytest.fixture(scope="session", autouse=True)
def timed_shortly() -> Iterator[None]:
    """Tiny models need no blocks of 50 ms: what is timed here is whether it is timed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "BLOCK_MS", 5.0)
        patch.setattr(timing, "WARMUP_SECONDS", 0.1)
        patch.setattr(profile, "SECONDS", 0.03)
        patch.setattr(profile, "WARMUP_SECONDS", 0.02)
        patch.setattr(limits, "WARMUP_SECONDS", 0.02)
        patch.setattr(limits, "CALLS", 3)
        yield


@pytest.fixture(scope="session")
def published(once: Once) -> Folders:
    """Architecture -> folder in Hugging Face layout, not to be written to."""
    return Folders(
        ARCHITECTURES, lambda name: once(f"published-encoder-{name}", lambda out: write_published(out, name))
    )


@pytest.fixture(scope="session")
def checkpoints(once: Once, published: Folders) -> Folders:
    """Architecture -> checkpoint as the load stage leaves it, not to be written to."""

    def build(name: str) -> Path:
        model = EncoderModel(source=f"path:{published[name]}")
        return once(f"checkpoint-encoder-{name}", lambda out: import_model(model, out))

    return Folders(ARCHITECTURES, build)


@pytest.fixture
def copy_of(tmp_path) -> Callable[[Path], Path]:
    """A copy of a folder that a test may damage."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / "copy"))

    return copy


@pytest.fixture(scope="session", autouse=True)
def stock_in_process() -> Iterator[None]:
    """The gate of what is read without its fresh process, whose imports take 5 to 8 s."""

    def run(command: list[str], **_: Any) -> CompletedProcess[str]:
        script, published, asked, told = command[2:]  # after Python and its flag
        try:
            found = runpy.run_path(script)["read"](published, json.loads(Path(asked).read_text()))
        except Exception as error:
            return CompletedProcess(command, 1, "", f"{type(error).__name__}: {error}")
        np.savez(told, **found)
        return CompletedProcess(command, 0, "", "")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "subprocess", SimpleNamespace(run=run))
        yield


@pytest.fixture
def reopened_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate of pruned checkpoints without its fresh process, whose imports take seconds."""

    def run(command: list[str], **_: Any) -> CompletedProcess[str]:
        printed = io.StringIO()
        with redirect_stdout(printed):
            reload.main(*command[3:])  # after Python, its flag and the script
        return CompletedProcess(command, 0, printed.getvalue(), "")

    monkeypatch.setattr(reload, "subprocess", SimpleNamespace(run=run))


@pytest.fixture(scope="session")
def splits_folder(once: Once) -> Path:
    """80 calibration, all the rest train, 40 select and 40 test sentences."""

    def build(folder: Path) -> None:
        rng, corpus = random.Random(0), folder / "corpus.txt"
        corpus.write_text("\n".join(" ".join(sentence(rng) for _ in range(4)) for _ in range(160)))
        config = TextData(
            corpora={"made": TextFile(source=f"path:{corpus}")},
            test_corpus="made",
            calibration=80,
            select=40,
            test=40,
        )
        open_splits(config, folder / "splits")

    return once("splits", build) / "splits"


@pytest.fixture(scope="session")
def splits(splits_folder) -> Splits:
    return load_texts(splits_folder)


@pytest.fixture(scope="session")
def graphs(once: Once, checkpoints: Folders, splits_folder: Path) -> Callable[..., Path]:
    """`(architecture, fused)` -> folder with model.onnx, exported when first asked for."""

    def get(name: str = "bert", fuse: bool = True) -> Path:
        config = TorchExport(fuse=fuse)
        return once(
            f"graph-encoder-{name}-{fuse}", lambda out: export(config, checkpoints[name], splits_folder, out)
        )

    return get


# ---------------------------------------------------------------- images

NETS = {
    "resnet": {"widths": [8, 12], "blocks": 1, "classes": 3},
    "depthwise": {"widths": [8, 12], "strides": [1, 2], "classes": 3},
    "vit": {"width": 16, "layers": 2, "heads": 4, "ffn": 32, "side": 8, "patch": 4, "classes": 3},
}
PREPROCESSING = {"size": {"height": 8, "width": 8}, "image_mean": [0.4], "image_std": [0.3]}


def idx(array: np.ndarray) -> bytes:
    """An array of unsigned bytes in LeCun's format."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def stripes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of 8 x 8 whose class is which third of the rows is bright."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count).astype(np.uint8)
    images = random.integers(0, 120, (count, 8, 8)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[3 * label : 3 * label + 2] += 100
    return images, labels


@pytest.fixture(scope="session")
def image_data(once: Once) -> ImageData:
    """240 images to cut from and 60 to test on, in the files of MNIST."""

    def build(folder: Path) -> None:
        for seed, (name, count) in enumerate({"train": 240, "t10k": 60}.items()):
            images, labels = stripes(count, seed)
            (folder / f"{name}-images").write_bytes(idx(images))
            (folder / f"{name}-labels").write_bytes(idx(labels))

    folder = once("idx", build)
    sets = {
        key: ImageSet(
            source=f"path:{folder}", format=ImageFormat.idx, images=f"{name}-images", labels=f"{name}-labels"
        )
        for key, name in (("train_set", "train"), ("test_set", "t10k"))
    }
    return ImageData(classes=["top", "middle", "bottom"], calibration=30, select=60, **sets)


@pytest.fixture(scope="session")
def image_splits_folder(once: Once, image_data: ImageData) -> Path:
    return once("image-splits", lambda out: open_splits(image_data, out))


@pytest.fixture(scope="session")
def image_splits(image_splits_folder) -> ImageSplits:
    return load_images(image_splits_folder)


def write_net(folder: Path, name: str) -> None:
    """A net with random weights that its name seeds, as somebody else might publish it."""
    kwargs = NETS[name]
    builder = f"compress.models.image_nets:{name}"
    with torch.random.fork_rng():
        torch.manual_seed(list(NETS).index(name))
        net = build_net(builder, kwargs)
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # the identity would hide what forgets it
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, std=0.2)
                torch.nn.init.normal_(module.running_mean, std=0.2)
                torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
        if name == "vit":  # new it is nearly linear, and zero biases would hide what forgets them
            for key, parameter in net.named_parameters():
                if "layernorm" not in key:
                    torch.nn.init.normal_(parameter, std=0.1 if key.endswith("bias") else 0.25)
    labels = {"0": "top", "1": "middle", "2": "bottom"}
    config = {"builder": builder, "builder_kwargs": kwargs, "id2label": labels}
    if name == "vit":
        net.config.id2label = {int(number): word for number, word in labels.items()}
        config = json.loads(net.config.to_json_string())
    facts = Facts(task="image_classification", source="made", base_model=name, license="mit")
    ImageClassifier(net, config, PREPROCESSING, facts, []).save(folder, facts)


@pytest.fixture(scope="session")
def image_checkpoints(once: Once) -> Folders:
    """Net -> checkpoint with random weights as the load stage leaves it, not to be written to."""

    def build(name: str) -> Path:
        published = once(f"published-net-{name}", lambda out: write_net(out, name))
        model = ImageClassifierModel(source=f"path:{published}")
        return once(f"checkpoint-net-{name}", lambda out: import_model(model, out))

    return Folders(tuple(NETS), build)


@pytest.fixture(scope="session")
def image_graphs(once: Once, image_checkpoints: Folders, image_splits_folder: Path) -> Folders:
    """Net -> folder with model.onnx, exported when first asked for."""

    def get(name: str) -> Path:
        checkpoint = image_checkpoints[name]
        return once(
            f"graph-net-{name}", lambda out: export(TorchExport(), checkpoint, image_splits_folder, out)
        )

    return Folders(tuple(NETS), get)


# ---------------------------------------------------------------- language models

MARKS = ("<|endoftext|>", "<|im_start|>")  # Qwen's class adds the first where it is missing
LANGUAGE_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "initializer_range": 0.25,  # the usual 0.02 leaves a random model nearly linear
}
_WINDOWS = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 5}
LANGUAGE_CHANGES: dict[str, dict[str, object]] = {
    "phi3": {"hidden_size": 64, "original_max_position_embeddings": 256},  # its heads are of that by number
    "smollm3": {"num_hidden_layers": 4, "no_rope_layers": [1, 0, 1, 0]},
    "olmo3": {"num_hidden_layers": 4, **_WINDOWS},
    "exaone4": {"num_hidden_layers": 4, **_WINDOWS},  # its full layers have no rotation
    "granite": {
        "attention_multiplier": 0.2,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.7,
        "logits_scaling": 4.0,
    },
    "ernie4_5": {"use_bias": True},
    "ministral3": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 8,
            "llama_4_scaling_beta": 0.1,  # queries grow behind them
        }
    },
}
LANGUAGE = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "smollm3", "phi3"),
    *("olmo2", "olmo3", "exaone4", "granite", "ministral3", "ernie4_5", "hunyuan_v1_dense", "seed_oss"),
    "arcee",
)


def write_bpe(folder: Path, texts: list[str], size: int = 320) -> int:
    """A tokenizer as SmolLM2's: byte-level BPE; its size."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=MARKS[0], bos_token=MARKS[1], pad_token=MARKS[0]
    )
    fast.save_pretrained(folder)
    return len(fast)


def write_language(folder: Path, architecture: str, texts: list[str], **changes: object) -> Path:
    """A folder as a hub would serve it, with random weights that the architecture's name seeds."""
    vocabulary = write_bpe(folder, texts)
    with torch.random.fork_rng():
        torch.manual_seed(LANGUAGE.index(architecture))
        own = LANGUAGE_CHANGES.get(architecture, {})
        sizes = {**LANGUAGE_SIZES, "vocab_size": vocabulary, **own, **changes}
        config = transformers.AutoConfig.for_model(architecture, **sizes)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for name, parameter in model.named_parameters():  # zero biases would hide what forgets them
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", name="write_language")
def _write_language() -> Callable[..., Path]:
    return write_language


@pytest.fixture(scope="session")
def language_texts() -> list[str]:
    """120 documents, a paragraph each."""
    rng = random.Random(1)
    return [" ".join(sentence(rng) for _ in range(4)) for _ in range(120)]


@pytest.fixture(scope="session")
def language_published(once: Once, language_texts: list[str]) -> Folders:
    """Architecture -> language model in Hugging Face layout, not to be written to."""
    return Folders(
        LANGUAGE,
        lambda name: once(f"published-{name}", lambda out: write_language(out, name, language_texts)),
    )


@pytest.fixture(scope="session")
def language_checkpoints(once: Once, language_published: Folders) -> Folders:
    """Architecture -> checkpoint of a language model, as the load stage leaves it, not to be written to."""

    def build(name: str) -> Path:
        model = CausalLMModel(source=f"path:{language_published[name]}")
        return once(f"checkpoint-{name}", lambda out: import_model(model, out))

    return Folders(LANGUAGE, build)


@pytest.fixture(scope="session")
def language_graphs(once: Once, language_checkpoints: Folders, splits_folder: Path) -> Callable[..., Path]:
    """`(architecture, fused)` -> folder with the exported graph, made when first asked for."""

    def get(name: str, fused: bool = True) -> Path:
        config = GenaiExport() if fused else TorchExport(fuse=False)
        return once(
            f"graph-{name}-{fused}",
            lambda out: export(config, language_checkpoints[name], splits_folder, out),
        )

    return get


@dataclass(frozen=True)
class TinyLM:
    """One layer of attention, 2 heads that share keys and values, over a small vocabulary."""

    embedding: np.ndarray  # (vocabulary, 16), also the head
    projections: tuple[np.ndarray, ...]  # query (16, 16), key (16, 8), value (16, 8)

    def logits(self, ids: np.ndarray) -> np.ndarray:
        """(tokens, vocabulary) of `ids` (tokens,), in float64."""
        x = self.embedding[ids].astype(np.float64)
        query, key, value = (x @ each for each in self.projections)
        tokens = len(ids)
        scores = np.einsum("shd,td->hst", query.reshape(tokens, 2, 8), key) / np.sqrt(8)
        weights = np.exp(np.where(np.tri(tokens, dtype=bool), scores, -np.inf))
        mixed = np.einsum("hst,td->shd", weights / weights.sum(-1, keepdims=True), value)
        return np.asarray((x + mixed.reshape(tokens, 16)) @ self.embedding.T)

    def write(self, path: Path) -> Path:
        """As a fused graph, which extends its cache in place; the weights in a file beside it."""
        weights = {"table": self.embedding, "head": np.ascontiguousarray(self.embedding.T)}
        weights |= dict(zip(("wq", "wk", "wv"), self.projections, strict=True))
        integers = {"one": np.array([1], np.int32), "axis": np.array([1]), "length": np.array(1)}
        node = onnx.helper.make_node
        cache = ["past_key_values.0.key", "past_key_values.0.value"]
        present = [name.replace("past_key_values", "present") for name in cache]
        nodes = [
            node("Gather", ["table", "input_ids"], ["x"]),
            *(node("MatMul", ["x", f"w{part}"], [part], name=part) for part in "qkv"),
            node("ReduceSum", ["attention_mask", "axis"], ["sum"], keepdims=0),
            node("Cast", ["sum"], ["sum32"], to=TensorProto.INT32),
            node("Sub", ["sum32", "one"], ["seqlens"]),
            node("Shape", ["attention_mask"], ["shape"]),
            node("Gather", ["shape", "length"], ["total64"]),
            node("Cast", ["total64"], ["total"], to=TensorProto.INT32),
            node(
                "GroupQueryAttention",
                ["q", "k", "v", *cache, "seqlens", "total"],
                ["mixed", *present],
                domain="com.microsoft",
                num_heads=2,
                kv_num_heads=1,
            ),
            node("Add", ["x", "mixed"], ["y"]),
            node("MatMul", ["y", "head"], ["logits"], name="head"),
        ]

        def value(name: str, kind: int, *shape: object) -> onnx.ValueInfoProto:
            return onnx.helper.make_tensor_value_info(name, kind, shape)

        graph = onnx.helper.make_graph(
            nodes,
            "tiny",
            [
                value("input_ids", TensorProto.INT64, "batch", "tokens"),
                value("attention_mask", TensorProto.INT64, "batch", "total"),
                *(value(name, TensorProto.FLOAT, "batch", 1, "past", 8) for name in cache),
            ],
            [
                value("logits", TensorProto.FLOAT, "batch", "tokens", len(self.embedding)),
                *(value(name, TensorProto.FLOAT, "batch", 1, "all", 8) for name in present),
            ],
            [onnx.numpy_helper.from_array(each, name) for name, each in {**weights, **integers}.items()],
        )
        opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("com.microsoft", 1)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
        onnx.save(model, path, save_as_external_data=True, location=f"{path.name}_data", size_threshold=512)
        return path

    def feeds(self, ids: np.ndarray, past: int = 0) -> dict[str, np.ndarray]:
        """Of `ids` (batch, tokens) after zeros; more than the graph takes."""
        batch, tokens = ids.shape
        zeros = np.zeros((batch, 1, past, 8), np.float32)
        return {
            "input_ids": ids.astype(np.int64),
            "attention_mask": np.ones((batch, past + tokens), np.int64),
            "position_ids": np.arange(past, past + tokens)[None].repeat(batch, 0),
            "past_key_values.0.key": zeros,
            "past_key_values.0.value": zeros,
        }


@pytest.fixture(scope="session")
def tiny_lm() -> TinyLM:
    random = np.random.default_rng(0)
    sizes = [(len(WORDS) + 2, 16), (16, 16), (16, 8), (16, 8)]
    embedding, *projections = (random.standard_normal(size).astype(np.float32) for size in sizes)
    return TinyLM(embedding, tuple(projections))
