"""Range checks of the dataclasses, each beside a value that is just allowed."""

import dataclasses
import math
import re

import pytest

from compress.config.data import PairFile, PairSplit, TextData, TextFile
from compress.config.evaluate import SentenceSimilarity
from compress.config.export import OptimumExport
from compress.config.model import EncoderModel
from compress.config.prune import Keep, LanguageKeep, LanguagePrune, NoPrune, StructuredPrune
from compress.config.quantize import (
    Int4Blocks,
    Int8Blocks,
    Int8Dynamic,
    Int8Qat,
    Int8Smooth,
    Int8Static,
    MixedBlocks,
    NoQuantize,
)
from compress.config.recover import Distill, NoRecover, NoTrain
from compress.config.run import RunConfig, leaves
from compress.config.target import BudgetConfig, LocalTarget
from compress.errors import ConfigError
from compress.registry import OPTIONS

TEXT = {"corpora": {"a": TextFile(source="path:a")}, "test_corpus": "a"}

WRONG = [
    (lambda v: Keep(ffn=v), 1.5, 1.0),
    (lambda v: Keep(heads=v), 0.0, 1e-9),
    (lambda v: Keep(layers=v), math.nan, 0.5),
    (lambda v: StructuredPrune(round_to=v), 0, 1),
    (lambda v: StructuredPrune(damping=v), 0.0, 10.0),
    (lambda v: LanguageKeep(ffn=v), 1.5, 1.0),
    (lambda v: LanguageKeep(kv_heads=v), 0.0, 0.3),
    (lambda v: LanguageKeep(layers=v), -0.1, 0.9),
    (lambda v: LanguagePrune(vocabulary=v), 0, None),
    (lambda v: LanguagePrune(round_to=v), 0, 1),
    (lambda v: LanguagePrune(damping=v), 0.0, 10.0),
    (lambda v: LanguagePrune(calibration_tokens=v), 63, 64),
    (lambda v: LanguagePrune(protect_first=v), -1, 0),
    (lambda v: LanguagePrune(protect_last=v), -1, 0),
    (lambda v: Distill(steps=v), 0, 1),
    (lambda v: Distill(warmup=v), 1.01, 1.0),
    (lambda v: Distill(max_minutes=v), -1.0, None),
    (lambda v: Distill(seed=v), -1, 0),
    (lambda v: OptimumExport(opset=v), 13, 14),
    (lambda v: OptimumExport(max_abs_diff=v), 0.0, 1.0),
    (lambda v: Int8Dynamic(min_coverage=v), 1.1, 0.0),
    (lambda v: Int8Dynamic(exclude=v), ["("], ["layer.0"]),
    (lambda v: Int8Dynamic(smooth=v), 1.1, None),
    (lambda v: Int8Static(smooth=v), -0.1, 0.0),
    (lambda v: Int8Static(percentile=v), 49.9, 100.0),
    (lambda v: Int8Static(exclude=v), ["*"], []),
    (lambda v: Int8Qat(epochs=v), 0, 1),
    (lambda v: Int8Qat(images=v), -1, 0),
    (lambda v: Int8Qat(batch_size=v), 0, 1),
    (lambda v: Int8Qat(learning_rate=v), 0.0, 10.0),
    (lambda v: Int8Qat(distill=v), 1.1, 1.0),
    (lambda v: Int8Qat(temperature=v), 0.0, 1.0),
    (lambda v: Int8Qat(seed=v), -1, 0),
    (lambda v: Int8Qat(percentile=v), 49.9, 100.0),
    (lambda v: Int8Qat(bias_correction=v), True, False),
    (lambda v: Int8Blocks(block_size=v), 48, 64),
    (lambda v: Int8Blocks(accuracy_level=v), 2, 4),
    (lambda v: Int8Blocks(max_kl=v), 0.0, 0.01),
    (lambda v: Int8Blocks(exclude=v), ["("], ["lm_head"]),
    (lambda v: Int4Blocks(head_bits=v), 6, 4),
    (lambda v: Int4Blocks(windows=v), 0, 1),
    (lambda v: Int4Blocks(block_size=v), 8, 16),
    (lambda v: MixedBlocks(max_size_mb=v), None, 1.0),
    (lambda v: MixedBlocks(max_kl=v), 0.0, 0.1),
    (lambda v: MixedBlocks(max_kl=0.1, sensitivity_windows=v), 0, 1),
    (lambda v: Int8Smooth(windows=v), 0, 1),
    (lambda v: SentenceSimilarity(resamples=v), 99, 100),
    (lambda v: SentenceSimilarity(seed=v), 2**32, 2**32 - 1),
    (lambda v: LocalTarget(threads=v), -1, 0),
    (lambda v: LocalTarget(max_seconds=v), 0.5, 1.0),
    (lambda v: LocalTarget(workloads=v), [], ["1x1"]),
    (lambda v: LocalTarget(workloads=v), ["1x8", "1x8"], ["1x8", "2x8"]),
    (lambda v: LocalTarget(workloads=v), ["8x"], ["8x1"]),
    (lambda v: LocalTarget(workloads=v), ["0x8"], ["1x8"]),
    (lambda v: LocalTarget(workloads=v), ["²x8"], ["2x8"]),
    (lambda v: BudgetConfig(min_speedup=v), -0.1, 0.0),
    (lambda v: TextData(**TEXT, calibration=v), 0, 1),
    (lambda v: TextData(**TEXT, train=v), -1, 0),
    (lambda v: TextData(**TEXT, max_words=v), 4, 5),  # min_words is 5
    (lambda v: TextData(corpora=TEXT["corpora"], test_corpus=v), "b", "a"),
]


@pytest.mark.parametrize(("make", "wrong", "right"), WRONG)
def test_ranges(make, wrong, right):
    with pytest.raises(ConfigError) as raised:
        make(wrong)
    assert "found:" in str(raised.value)
    assert "allowed:" in str(raised.value)
    make(right)


def run_config(**changes):
    settings = {
        "name": "x",
        "model": EncoderModel(source="path:x"),
        "data": TextData(**TEXT, pairs={"lee": PairFile(source="path:p")}),
        "prune": NoPrune(),
        "recover": NoRecover(),
        "export": OptimumExport(),
        "quantize": NoQuantize(),
        "evaluate": SentenceSimilarity(),
        "target": LocalTarget(),
        "train": NoTrain(),
    }
    return RunConfig(**{**settings, **changes})


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc", "-x", "a b", ".hidden"])
def test_the_name_of_a_run_is_a_plain_folder_name(name):
    with pytest.raises(ConfigError, match="name is no plain folder name"):
        run_config(name=name)
    assert run_config(name="a-1_b.c").name == "a-1_b.c"


def test_the_primary_metric_is_checked_before_any_work():
    with pytest.raises(ConfigError, match=re.escape("did you mean 'lee_spearman'")):
        run_config(evaluate=SentenceSimilarity(primary="lee_spearma"))
    for primary in ("cosine", "lee_pearson"):
        assert run_config(evaluate=SentenceSimilarity(primary=primary)).evaluate.primary == primary


def test_a_pair_set_for_selection_gives_no_primary_metric():
    pairs = {"lee": PairFile(source="path:p", split=PairSplit.select)}
    with pytest.raises(ConfigError, match="names no metric"):
        run_config(data=TextData(**TEXT, pairs=pairs))


@pytest.mark.parametrize("wrong", ["1x1+", "1x1+0", "1+442", "1x1+4+4", "1x1x4", "+4", "1x1+-4", "x1"])
def test_a_workload_that_cannot_be_read(wrong):
    with pytest.raises(ConfigError, match=r"1x1\+442"):
        LocalTarget(workloads=[wrong])


def test_leaves_name_every_setting_once():
    names = [name for name, _ in leaves(run_config())]
    assert len(names) == len(set(names))
    assert {"name", "model.source", "export.opset", "budget.min_speedup"} <= set(names)


def test_every_option_is_a_subclass_of_a_base_without_fields():
    bases = dict(RunConfig.__annotations__.items())
    for group, options in OPTIONS.items():
        assert not dataclasses.fields(bases[group])
        for option in options.values():
            assert issubclass(option, bases[group])
