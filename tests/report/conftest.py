"""A whole report as a run of MiniLM would leave it, built by hand; no number here was measured."""

import base64
import dataclasses
import math
import struct
import zlib

import pytest
from matplotlib.figure import Figure

from compress.schema.details import ChangedAnswer, ClassDrop, ClassificationDetails, Confusion
from compress.schema.estimates import Estimate, Latency, Score
from compress.schema.gate import Gate
from compress.schema.pruning import ChannelGroup, PrunedAlone, PruningSensitivity, Recovery
from compress.schema.quantization import Coverage, SkippedNode
from compress.schema.report import Report, Split, Stage, Variant, Verdict
from compress.schema.speed import ATTENTION, FLOAT, INTEGER, MOVES, SUMS, Floor, Limits, Operator, Profile

WORKLOADS = ("1x32", "1x128", "8x128")


def score(value: float, half: float, n: int) -> Score:
    return Score(value=value, ci95=(value - half, value + half), n=n, higher_is_better=True)


def estimate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value=value, ci95=(low, high))


def latency(p50: float, spread: float = 0.012) -> Latency:
    return Latency(
        p50=p50, p90=p50 * 1.09, p99=p50 * 1.31, ci95=(p50 * (1 - spread), p50 * (1 + spread)), samples=240
    )


def latencies(*p50: float) -> dict[str, Latency]:
    return dict(zip(WORKLOADS, map(latency, p50), strict=True))


def speedups(*triples: tuple[float, float, float]) -> dict[str, Estimate]:
    return dict(zip(WORKLOADS, (estimate(*triple) for triple in triples), strict=True))


def profile(*operators: tuple[str, str, int, float]) -> Profile:
    return Profile(operators=tuple(Operator(op_type=t, kind=k, nodes=n, ms=ms) for t, k, n, ms in operators))


def digest(seed: str) -> str:
    return (seed.encode().hex() * 32)[:64]


DENSE = Variant(
    name="dense",
    stage="export",
    path="store/dense/model.onnx",
    sha256=digest("dense"),
    size_bytes=90_405_214,
    parameters=22_713_216,
    macs=1_392_508_928,
    quality={"lee_spearman": score(0.5081, 0.0904, 50), "wordsim353_spearman": score(0.6342, 0.061, 353)},
    latency_ms=latencies(5.62, 19.31, 163.4),
    load_ms=212.0,
    peak_memory_bytes=311_000_000,
    widths={"ffn": (1536,) * 6, "heads": (12,) * 6},
    seconds=21.4,
)
PRUNED = Variant(
    name="pruned",
    stage="prune",
    path="store/pruned/model.onnx",
    sha256=digest("pruned"),
    size_bytes=62_081_330,
    parameters=15_629_952,
    macs=939_524_096,
    quality={"lee_spearman": score(0.4713, 0.0911, 50), "wordsim353_spearman": score(0.5904, 0.066, 353)},
    fidelity={"cosine": score(0.9203, 0.0042, 500)},
    drop_from_dense={
        "lee_spearman": estimate(0.0368, 0.0121, 0.0633),
        "wordsim353_spearman": estimate(0.0438, 0.0205, 0.0671),
    },
    latency_ms=latencies(5.48, 14.02, 118.9),
    speedup=speedups((1.026, 0.983, 1.071), (1.377, 1.341, 1.412), (1.374, 1.352, 1.398)),
    load_ms=171.0,
    peak_memory_bytes=249_000_000,
    widths={"ffn": (768, 896, 768, 640, 768, 768), "heads": (12,) * 6},
    seconds=14.2,
)
RECOVERED = dataclasses.replace(
    PRUNED,
    name="pruned-recovered",
    stage="recover",
    sha256=digest("recovered"),
    quality={"lee_spearman": score(0.5032, 0.0907, 50), "wordsim353_spearman": score(0.6251, 0.062, 353)},
    fidelity={"cosine": score(0.9624, 0.0021, 500)},
    drop_from_dense={
        "lee_spearman": estimate(0.0049, -0.0151, 0.0243),
        "wordsim353_spearman": estimate(0.0091, -0.0062, 0.0244),
    },
    latency_ms=latencies(5.51, 14.11, 118.2),
    speedup=speedups((1.020, 0.979, 1.062), (1.369, 1.331, 1.404), (1.382, 1.361, 1.407)),
    seconds=611.0,
)
INT8 = Variant(
    name="int8",
    stage="quantize",
    path="artifact/model.onnx",
    sha256=digest("int8"),
    size_bytes=15_902_771,
    parameters=15_629_952,
    macs=939_524_096,
    quality={"lee_spearman": score(0.5060, 0.0899, 50), "wordsim353_spearman": score(0.6198, 0.0625, 353)},
    fidelity={"cosine": score(0.9571, 0.0023, 500)},
    drop_from_dense={
        "lee_spearman": estimate(0.0021, -0.0188, 0.0229),
        "wordsim353_spearman": estimate(0.0144, -0.0019, 0.0307),
    },
    latency_ms=latencies(2.71, 7.66, 57.2),
    speedup=speedups((2.074, 1.998, 2.151), (2.521, 2.462, 2.583), (2.857, 2.811, 2.904)),
    load_ms=96.0,
    peak_memory_bytes=148_000_000,
    quantization=Coverage(
        coverage_macs=0.9874,
        coverage_bytes=0.9932,
        skipped=(
            *(
                SkippedNode(node=f"/encoder/layer.{i}/attention/self/MatMul{j}", reason="both inputs vary")
                for i in range(6)
                for j in ("", "_1")
            ),
            SkippedNode(node="/pooler/dense/Gemm", reason="excluded by quantize.exclude"),
        ),
    ),
    widths=PRUNED.widths,
    seconds=9.8,
)
DENSE = dataclasses.replace(
    DENSE,
    profile={
        "1x128": profile(("MatMul", FLOAT, 36, 13.9), ("MatMul", ATTENTION, 12, 2.1), ("Add", SUMS, 50, 1.4))
    },
    floor={"1x128": Floor(memory_ms=0.0, integer_ms=0.0, float_ms=9.66)},
)
PRUNED = dataclasses.replace(
    PRUNED,
    profile={
        "1x128": profile(("MatMul", FLOAT, 36, 9.2), ("Attention", ATTENTION, 6, 1.8), ("Sum", SUMS, 13, 0.9))
    },
    not_faster={"1x32": ("cannot be distinguished from dense: EXPLAINED", "data movement: 0.31 ms a call")},
)
INT8 = dataclasses.replace(
    INT8,
    profile={
        "1x128": profile(
            ("DynamicQuantizeMatMul", INTEGER, 18, 2.61),
            ("Attention", ATTENTION, 6, 1.83),
            ("Sum", SUMS, 13, 0.91),
            ("Gather", MOVES, 4, 0.02),
        )
    },
    floor={"1x128": Floor(memory_ms=0.0, integer_ms=0.81, float_ms=0.54)},
)
STEPS = list(range(0, 1201, 100))


@pytest.fixture
def without_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty image for each figure of a page: for tests of its words, which need no second of drawing."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: file.write("<svg/>"))


@pytest.fixture(scope="session")
def report() -> Report:
    return Report(
        experiment="minilm",
        config={
            "name": "minilm",
            "model": {"source": "package:minilm-weights==1.0/model", "license": "apache-2.0"},
            "prune": {
                "importance": "activation",
                "scope": "global",
                "keep": {"ffn": 0.5, "heads": 1.0, "layers": 1.0},
                "round_to": 64,
                "repair": True,
            },
            "recover": {"steps": 1200, "learning_rate": 4e-4, "batch_tokens": 4096, "max_length": 128},
            "quantize": {"weight_type": "auto", "per_channel": True, "exclude": ["pooler"]},
            "target": {"threads": 2},
            "benchmark": {"workloads": list(WORKLOADS)},
            "budget": {"max_quality_drop": 0.05, "min_speedup": 1.9, "max_size_mb": None},
        },
        environment={
            "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
            "isa_flags": ["fpu", "sse4_2", "avx2", "fma", "avx512f", "avx512_vnni", "amx_int8", "pae"],
            "threads": 2,
            "packages": {"onnxruntime": "1.31.1", "torch": "2.13.0+cpu", "transformers": "4.57.6"},
            "git": "4f2c9e1",
        },
        splits={
            "calibration": Split(examples=256, fingerprint=digest("cal"), requested=256),
            "train": Split(examples=41_872, fingerprint=digest("train")),
            "select": Split(examples=256, fingerprint=digest("select"), requested=256),
            "test": Split(examples=500, fingerprint=digest("test"), requested=500),
        },
        primary_metric="lee_spearman",
        variants=(DENSE, PRUNED, RECOVERED, INT8),
        verdict=Verdict(
            ships=True,
            best="int8",
            reasons=(
                "lee_spearman drops by at most 0.0229 (upper end), the budget allows 0.0254",
                "speed-up is at least 1.998 at 1x32, the least of all workloads; the budget asks for 1.9",
            ),
        ),
        stages=(
            Stage(name="load", digest=digest("l"), reused=True, seconds=3.1),
            Stage(name="export dense", digest=digest("e"), reused=True, seconds=21.4),
            Stage(name="prune", digest=digest("p"), reused=False, seconds=14.2),
            Stage(name="recover", digest=digest("r"), reused=False, seconds=611.0),
            Stage(name="export", digest=digest("x"), reused=False, seconds=18.8),
            Stage(name="quantize", digest=digest("q"), reused=False, seconds=9.8),
            Stage(name="evaluate", digest=digest("v"), reused=False, seconds=74.5),
            Stage(name="benchmark", digest=digest("b"), reused=False, seconds=241.9),
        ),
        gates=(
            Gate(name="dense torch = ONNX", passed=True, numbers={"max_abs": 2.4e-6, "cosine": 0.9999998}),
            Gate(name="reload of the pruned", passed=True, numbers={"max_abs": 0.0}),
            Gate(name="student torch = ONNX", passed=True, numbers={"max_abs": 3.1e-6, "cosine": 0.9999997}),
            Gate(name="coverage", passed=True, numbers={"coverage_macs": 0.9874, "floor": 0.95}),
        ),
        limits=Limits(
            threads=2,
            bandwidth_gb_per_s=18.2,
            float32_gflops=281.0,
            integer_gops={"int8": 2240.0, "uint8": 610.0},
            cache_bytes=110_100_480,
        ),
        noise=(
            "dense against itself: 1.00 [0.99, 1.01] at 1x128",
            "1x32: the first and the last third differ by 1.2 %",
        ),
        recovery=Recovery(
            steps=tuple(STEPS),
            train_loss=tuple(0.08 + 0.5 * math.exp(-step / 250) for step in STEPS),
            select_loss=tuple(0.10 + 0.46 * math.exp(-step / 270) for step in STEPS),
        ),
        command="compress run experiment=minilm prune.keep.ffn=0.5 prune.scope=global",
    )


@pytest.fixture(scope="session")
def bare(report: Report) -> Report:
    """prune=none recover=none quantize=none, and nothing that may be missing is there."""
    dense = Variant(
        name="dense",
        stage="export",
        path="m.onnx",
        sha256="0" * 64,
        size_bytes=90_405_214,
        parameters=22_713_216,
        macs=None,
    )
    return Report(
        experiment="bare",
        config={},
        environment={},
        splits={},
        primary_metric="lee_spearman",
        variants=(dense,),
        verdict=Verdict(ships=False, best="dense", reasons=()),
        stages=(),
    )


# ---------------------------------------------------------------- a classifier of images

LAYERS = ("body.0.0", "body.2.first.0", "body.2.second.0", "body.3.first.0", "body.3.second.0", "head")


def picture() -> str:
    """A PNG of one grey pixel, by the format's own rules."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    pixels, end = chunk(b"IDAT", zlib.compress(b"\0\x80")), chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + header + pixels + end).decode()


def class_drop(name: str, accuracy: float, value: float) -> ClassDrop:
    return ClassDrop(
        name=name, examples=1000, accuracy=accuracy, drop=estimate(value, value - 0.011, value + 0.012)
    )


SAME = ClassificationDetails(
    lost=0,
    gained=0,
    mcnemar_p=1.0,
    ece=0.0213,
    per_class=tuple(class_drop(name, 0.93, 0.0) for name in ("coat", "dress", "shirt")),
    confusions=(),
)
WORSE = ClassificationDetails(
    lost=84,
    gained=51,
    mcnemar_p=0.0059,
    ece=0.0417,
    per_class=(
        class_drop("shirt", 0.789, 0.024),
        class_drop("coat", 0.91, 0.004),
        class_drop("dress", 0.94, -0.003),
    ),
    confusions=(
        Confusion(label="shirt", answer="coat", dense=61, variant=79),
        Confusion(label="dress", answer="shirt", dense=30, variant=22),
    ),
    changed=tuple(
        ChangedAnswer(
            example=100 * i,
            label="shirt",
            dense="shirt",
            dense_confidence=0.61,
            answer="coat",
            confidence=0.5309,
            png=picture(),
        )
        for i in range(3)
    ),
)


@pytest.fixture(scope="session")
def vision(report: Report) -> Report:
    """The same report, of a pruned convolutional net."""
    names = {"conv2d": LAYERS[:-1], "linear": LAYERS[-1:]}
    before, after = {"conv2d": (32, 32, 32, 64, 64), "linear": (10,)}, {"conv2d": (24, 16, 24, 40, 40)}
    changed = [
        dataclasses.replace(
            variant,
            classification=SAME if variant.name == "dense" else WORSE,
            widths=before if variant.name == "dense" else {**after, "linear": (10,)},
            layer_names=names,
        )
        for variant in report.variants
    ]
    cuts = [
        [
            PrunedAlone(
                keep=keep, channels=int(32 * keep), accuracy=0.93 - loss * cost, cross_entropy=0.2 + loss
            )
            for keep, cost in ((0.75, 0.1), (0.5, 0.2), (0.25, 0.3))
        ]
        for loss in (0.4, 1.9, 0.7)
    ]
    groups = tuple(
        ChannelGroup(layer=name, coupled=coupled, channels=32, cuts=tuple(each))
        for name, coupled, each in zip(LAYERS, (("body.2.second.0",), (), ()), cuts, strict=False)
    )
    sensitivity = PruningSensitivity(images=256, accuracy=0.93, cross_entropy=0.2, groups=groups)
    return dataclasses.replace(report, variants=tuple(changed), pruning_sensitivity=sensitivity)
