"""What the dataclasses refuse: ranges as their fields declare them, and checks of several fields."""

import dataclasses
import math
import re
from types import UnionType
from typing import get_args, get_type_hints

import pytest

from compress.config.benchmark import BenchmarkConfig
from compress.config.checks import FolderName, OneOf, Patterns, Range, allowed_of
from compress.config.data import PairFile, PairSplit, TextData, TextFile
from compress.config.evaluate import SentenceSimilarity
from compress.config.export import TorchExport
from compress.config.model import EncoderModel
from compress.config.prune import Keep, LanguagePrune, NoPrune
from compress.config.quantize import (
    Int8Blocks,
    Int8Dynamic,
    Int8Qat,
    MixedBlocks,
    NoQuantize,
)
from compress.config.recover import Distill, Finetune, Fit, NoRecover, NoTrain
from compress.config.run import RunConfig, leaves
from compress.config.search import SearchConfig
from compress.config.target import BudgetConfig, LocalTarget
from compress.errors import ConfigError
from compress.registry import OPTIONS, skips
from tests.config.options import make

TEXT = {"corpora": {"a": TextFile(source="path:a")}, "test_corpus": "a"}

WRONG = [
    (lambda v: Keep(layers=v), math.nan, 0.5),
    (lambda v: LanguagePrune(vocabulary=v), 0, None),
    (lambda v: Distill(max_minutes=v), -1.0, None),
    (lambda v: Int8Dynamic(exclude=v), ["("], ["layer.0"]),
    (lambda v: Int8Qat(percentile=v), 49.9, 100.0),
    (lambda v: Int8Qat(bias_correction=v), True, False),
    (lambda v: Int8Blocks(block_size=v), 48, 64),
    (lambda v: MixedBlocks(max_size_mb=v), None, 1.0),
    (lambda v: SentenceSimilarity(seed=v), 2**32, 2**32 - 1),
    (lambda v: BenchmarkConfig(workloads=v), [], ["1x1"]),
    (lambda v: BenchmarkConfig(workloads=v), ["1x8", "1x8"], ["1x8", "2x8"]),
    (lambda v: BenchmarkConfig(workloads=v), ["8x"], ["8x1"]),
    (lambda v: BenchmarkConfig(workloads=v), ["0x8"], ["1x8"]),
    (lambda v: BenchmarkConfig(workloads=v), ["²x8"], ["2x8"]),
    (lambda v: BudgetConfig(min_speedup=v), -0.1, 0.0),
    (lambda v: TextData(**TEXT, max_words=v), 4, 5),  # min_words is 5
    (lambda v: TextData(corpora=TEXT["corpora"], test_corpus=v), "b", "a"),
]


@pytest.mark.parametrize(("option", "wrong", "right"), WRONG)
def test_what_is_refused_beside_what_is_just_allowed(option, wrong, right):
    with pytest.raises(ConfigError) as raised:
        option(wrong)
    assert "found:" in str(raised.value)
    assert "allowed:" in str(raised.value)
    option(right)


def with_parts(kind):
    """A dataclass and those of its settings that are dataclasses."""
    yield kind
    for hint in get_type_hints(kind).values():
        if dataclasses.is_dataclass(hint):
            yield from with_parts(hint)


OPTION_TYPES = [kind for known in OPTIONS.values() for kind in known.values()]
CHECKED = sorted(
    {part for kind in [*OPTION_TYPES, BudgetConfig, SearchConfig] for part in with_parts(kind)},
    key=lambda kind: kind.__name__,
)
SETTINGS = [(kind, item.name) for kind in CHECKED for item in dataclasses.fields(kind)]


def numeric(kind, name):
    hint = get_type_hints(kind)[name]
    return {int, float} & {hint, *(get_args(hint) if isinstance(hint, UnionType) else ())}


@pytest.mark.parametrize("kind", CHECKED, ids=lambda kind: kind.__name__)
def test_every_number_says_what_it_may_be(kind):
    for item in dataclasses.fields(kind):
        assert not numeric(kind, item.name) or allowed_of(kind, item.name), item.name


def outside(kind, name, allowed):
    """Values just beyond what is allowed, and a message's beginning."""
    if isinstance(allowed, OneOf):
        return [min(allowed.values) - 1, max(allowed.values) + 1], f"{name} has no such value"
    if isinstance(allowed, Patterns):
        return [["("], ["sound", "*"]], f"{name} holds what is no regular expression"
    if isinstance(allowed, FolderName):
        return ["../x", "", ".x"], f"{name} is no plain folder name"
    step = 1 if int in numeric(kind, name) else 1e-6
    values = [allowed.low if allowed.open_low else allowed.low - step]
    values += [allowed.high + step] if math.isfinite(allowed.high) else []
    return [*values, *([math.nan] if step < 1 else [])], f"{name} is out of range"


@pytest.mark.parametrize(
    ("kind", "name"), [pair for pair in SETTINGS if allowed_of(*pair)], ids=lambda value: str(value)
)
def test_a_value_outside_is_refused_and_the_ends_are_not(kind, name):
    allowed = allowed_of(kind, name)
    values, message = outside(kind, name, allowed)
    for value in values:
        with pytest.raises(ConfigError, match=f"^{message}\n  found:   .*\n  allowed: "):
            make(kind, **{name: value})
    ends = [allowed.low + allowed.open_low, allowed.high] if isinstance(allowed, Range) else []
    for value in filter(math.isfinite, ends):
        allowed.check(name, value)


@pytest.mark.parametrize(
    ("allowed", "said"),
    [
        (Range(1), "at least 1"),
        (Range(0.0, open_low=True), "above 0"),
        (Range(0.0, 1.0), "[0, 1]"),
        (Range(0.0, 1.0, open_low=True), "(0, 1]"),
        (Range(1, 4096), "[1, 4096]"),
    ],
)
def test_how_a_range_is_written(allowed, said):
    assert str(allowed) == said


def test_another_default_keeps_the_range():
    assert allowed_of(Finetune, "distill") == allowed_of(Fit, "distill") == Range(0.0, 1.0)
    with pytest.raises(ConfigError, match="distill is out of range"):
        Finetune(distill=1.1)


def run_config(**changes):
    settings = {
        "name": "x",
        "model": EncoderModel(source="path:x"),
        "data": TextData(**TEXT, pairs={"lee": PairFile(source="path:p")}),
        "prune": NoPrune(),
        "recover": NoRecover(),
        "export": TorchExport(),
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
        BenchmarkConfig(workloads=[wrong])


def test_leaves_name_every_setting_once():
    names = [name for name, _ in leaves(run_config())]
    assert len(names) == len(set(names))
    assert {"name", "model.source", "export.opset", "budget.min_speedup"} <= set(names)


def test_a_base_has_no_setting_that_one_of_its_options_lacks():
    """Else a key of another option would be ignored where it is an error."""
    for group, options in OPTIONS.items():
        base = get_type_hints(RunConfig)[group]
        shared = {item.name for item in dataclasses.fields(base)}
        for option in options.values():
            assert issubclass(option, base)
            assert shared <= {item.name for item in dataclasses.fields(option)}
        if any(skips(make(option)) for option in options.values()):
            assert not shared
