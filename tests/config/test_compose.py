"""Everything in conf/ composes, and what is wrong is told in words that help."""

import itertools
import json
import re
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from compress.config.compose import (
    expand,
    from_plain,
    load_config,
    on_targets,
    options,
    replaced,
    to_plain,
    to_yaml,
)
from compress.config.data import TextData
from compress.config.prune import NoPrune, Scope
from compress.config.quantize import NoQuantize
from compress.config.run import conf_dir
from compress.errors import ConfigError
from compress.registry import OPTIONS, declared
from tests.heads import TASKS

GROUPS = {group: sorted(found) for group, found in options().items()}
EXPERIMENTS = GROUPS["experiment"]
# What an option needs that has no default.
NEEDS = {
    ("model", "encoder"): ["model.source=path:x"],
    ("model", "image_classifier"): ["model.source=path:x"],
    ("model", "causal_lm"): ["model.source=path:x"],
    ("data", "images"): ["data.train_set.source=path:x", "data.test_set.source=path:x"],
    ("quantize", "mixed_blocks"): ["quantize.max_size_mb=115"],
    ("data", "news_wikipedia"): ["evaluate.primary=cosine"],  # which has no judged pairs
    ("data", "documents"): [
        '+data.corpora={mine: {source: "path:x"}}',
        *(f"+data.{split}={{mine: 2}}" for split in ("calibration", "select", "test")),
        "evaluate.primary=cosine",
    ],
    ("train", "head"): ["train.encoder=path:x"],
    ("data", "text"): [
        "data.test_corpus=mine",
        '+data.corpora={mine: {source: "path:x"}}',
        "evaluate.primary=cosine",
    ],
}
RECORDS = ["data=records", "data.train_set.source=path:x"]
BASE_OF = {  # task -> what an option of it is swapped in
    "sentence_embedding": ["experiment=minilm"],
    "image_classification": ["experiment=fashion_resnet"],
    "language_modeling": ["experiment=smollm2"],
    **{task: [f"model={option}", "model.source=path:x", *RECORDS] for task, (option, *_) in TASKS.items()},
}
BASE = ["model.source=path:x"]


def chosen(group, option):
    return [f"{group}={option}", *NEEDS.get((group, option), [])]


@pytest.mark.parametrize(
    ("group", "option"), [(g, o) for g, names in GROUPS.items() if g != "experiment" for o in names]
)
def test_every_option_composes_in_an_experiment_of_its_task(group, option):
    file = conf_dir() / group / f"{option}.yaml"  # an option of a task's own needs none
    name = re.search(r"- (\w+)_schema", file.read_text()).group(1) if file.is_file() else option
    schema = OPTIONS[group][name]
    task = schema.task if group == "model" else next(t for t in BASE_OF if declared(schema).fits(t))
    config = load_config([*BASE_OF[task], *chosen(group, option)])
    assert type(getattr(config, group)) is schema


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_overrides_the_primary_file(experiment):
    """Guards `_self_` first and `experiment` last in config.yaml."""
    written = yaml.safe_load((conf_dir() / "experiment" / f"{experiment}.yaml").read_text())
    config = load_config([f"experiment={experiment}"])
    assert load_config(BASE).name == "custom"
    assert config.name == written["name"] != "custom"
    for key, value in written.get("budget", {}).items():
        assert getattr(config.budget, key) == value
    assert load_config([f"experiment={experiment}", "name=mine"]).name == "mine"


def test_every_registered_schema_has_an_option_that_uses_it():
    for group, schemas in OPTIONS.items():
        used = "".join(path.read_text() for path in sorted((conf_dir() / group).glob("*.yaml")))
        for schema, kind in schemas.items():
            own = kind.__module__.startswith("compress.tasks.")  # of a task's folder: an option as it is
            assert (own and schema in GROUPS[group]) or f"{schema}_schema" in used


def test_every_option_says_what_it_is():
    for group, found in options().items():
        for option, what in found.items():
            assert what, f"conf/{group}/{option}.yaml does not start with a comment"


def test_nothing_in_conf_names_code():
    for path in conf_dir().rglob("*.yaml"):
        content = yaml.safe_load(path.read_text())
        content.pop("hydra", None)
        assert "_target_" not in str(content), path


def test_a_key_of_another_option_is_an_error():
    with pytest.raises(ConfigError, match=r"unknown key in NoPrune\n  found:   prune.repair"):
        load_config([*BASE, "prune=none", "prune.repair=true"])


def test_global_is_a_scope_although_it_is_a_keyword():
    assert load_config([*BASE, "prune=transformer", "prune.scope=global"]).prune.scope is Scope["global"]


MESSAGES = [
    (["prune=transformer", "prune.keep.fnn=1"], "unknown key in Keep", "prune.keep.fnn", "mean 'ffn'"),
    (["budget.min_speeedup=1"], "unknown key in BudgetConfig", "budget.min_speeedup", "mean 'min_speedup'"),
    (["nmae=x"], "unknown key", "nmae", "mean 'name'"),
    (["++zzz=1"], "unknown key", "zzz", "quantize"),
    (["quantise=none"], "unknown key", "quantise", "mean 'quantize'"),
    (["quantize=int8_dinamic"], "unknown option for quantize", "int8_dinamic", "mean 'int8_dynamic'"),
    (["experiment=minlm"], "unknown option for experiment", "minlm", "mean 'minilm'"),
    (["model=foo"], "unknown option for model", "foo", "minilm_hub"),
    (["prune=null"], "unknown option for prune", "null", "transformer"),
    (["target.threads=abc"], "wrong value for target.threads", "abc", "an integer"),
    (["recover=distill", "recover.steps=1.5"], "wrong value for recover.steps", "1.5", "an integer"),
    (["budget.max_size_mb=big"], "wrong value for budget.max_size_mb", "big", "a number or null"),
    (["export.fuse=maybe"], "wrong value for export.fuse", "maybe", "true or false"),
    (["benchmark.workloads=8x128"], "wrong value for benchmark.workloads", "8x128", r"a list: \[a,b\]"),
    (["prune=transformer", "prune.keep=0.5"], "wrong value for prune.keep", "0.5", "ffn, heads, layers"),
    (["budget=3"], "wrong value for budget", "3", "min_speedup"),
    (
        ["prune=transformer", "prune.importance=tayler"],
        "prune.importance is unknown",
        "tayler",
        "mean 'taylor'",
    ),
    (["data.corpora.wikipedia.format=xml"], "wrong value for data.corpora.wikipedia.format", "xml", "lines"),
    (["prune=transformer", "prune.keep.ffn=1.5"], "prune.keep.ffn is out of range", "1.5", r"\(0, 1\]"),
    (["prune=transformer", "prune.round_to=0"], "prune.round_to is out of range", "0", r"\[1, 4096\]"),
    (["recover=distill", "recover.seed=-1"], "recover.seed is out of range", "-1", r"\[0, "),
    (["budget.min_speedup=-1"], "budget.min_speedup is out of range", "-1.0", "at least 0"),
    (["data.max_words=2"], "data.max_words is out of range", "2", "at least 5"),
    (["quantize.exclude=['(']"], "quantize.exclude holds what is no regular expression", "(: ", "regular"),
    *(
        (
            [f"benchmark.workloads=[{given}]"],
            f"benchmark.workloads {what}",
            found,
            "batch x tokens, both at least 1",
        )
        for given, what, found in (
            ("1x0", "has an entry that cannot be read", "1x0"),
            ("1x8,ax128", "has an entry that cannot be read", "ax128"),
            ("", "needs one entry or several different ones", "an empty list"),
            ("1x8,1x8", "needs one entry or several different ones", "1x8, 1x8"),
        )
    ),
    (["data.test_corpus=wiki"], "data.test_corpus names no corpus", "wiki", "wikipedia, news"),
    (["hydra.rnu.dir=x"], "unknown key in HydraConf", "hydra.rnu", "mean 'run'"),
]


@pytest.mark.parametrize(("overrides", "what", "found", "allowed"), MESSAGES)
def test_what_is_wrong_is_told_with_what_is_allowed(overrides, what, found, allowed):
    with pytest.raises(ConfigError) as raised:
        load_config([*BASE, *overrides])
    pattern = rf"^{re.escape(what)}\n  found:   {re.escape(found)}.*\n  allowed: .*{allowed}"
    assert re.search(pattern, str(raised.value)), str(raised.value)


def test_a_missing_setting_is_named_with_how_to_set_it():
    with pytest.raises(ConfigError, match=r"found:   model.source\n  next:    set it: model.source=\.\.\."):
        load_config([])
    with pytest.raises(ConfigError, match=r"found:   model.source, prune"):
        load_config(["~prune"])
    with pytest.raises(ConfigError, match="names no setting"):
        load_config([*BASE, "name=${nope}"])


def test_an_entry_of_a_dictionary_is_added_as_the_message_says():
    for override in ("data.corpora.mine.source=path:x", "+data.corpora.mine.source=path:x"):
        with pytest.raises(ConfigError) as raised:
            load_config([*BASE, override])
        advised = re.search(r"whole: '(.*)'$", str(raised.value)).group(1)
        assert load_config([*BASE, advised]).data.corpora["mine"].source == "path:..."


def test_a_corpus_of_ones_own_beside_or_instead():
    mine = '+data.corpora={mine: {source: "path:x", encoding: latin-1}}'
    data = load_config([*BASE, mine, "~data.corpora.news"]).data
    assert isinstance(data, TextData)
    assert sorted(data.corpora) == ["mine", "wikipedia"]
    assert data.corpora["mine"].encoding == "latin-1"


def test_expand_gives_the_product_of_all_values():
    jobs = expand(["prune=none,transformer", "seed=1", "a.b=2,3", "c=[1,2]"], sweep=True)
    product = itertools.product(["prune=none", "prune=transformer"], ["a.b=2", "a.b=3"])
    assert jobs == [[prune, "seed=1", ab, "c=[1,2]"] for prune, ab in product]


def test_expand_leaves_a_single_run_as_it_is():
    overrides = ["+a={b: 1}", "~c", "hydra.run.dir=x", "d=${e}"]
    assert expand(overrides, sweep=False) == [overrides]
    assert expand([], sweep=False) == [[]]


def test_a_word_for_each_target():
    words = ["target=[local,ssh]", "target.threads=2", "+target.python=/py", "a.b=[1,2]"]
    common = ["target.threads=2", "a.b=[1,2]"]
    assert on_targets(words) == {
        "local": ["target=local", *common],
        "ssh": ["target=ssh", "target.threads=2", "+target.python=/py", "a.b=[1,2]"],
    }
    assert on_targets(common) == {"local": common}
    assert on_targets(["target=ssh", *common]) == {"ssh": ["target=ssh", *common]}
    assert on_targets(["target=[local]", "target.thread=2"]) == {"local": ["target=local", "target.thread=2"]}
    with pytest.raises(ConfigError, match="twice"):
        on_targets(["target=[local,local]"])


def test_several_values_without_a_sweep():
    with pytest.raises(ConfigError, match=r"quantize=none,int8_static\n.*add -m"):
        expand(["quantize=none,int8_static"], sweep=False)


@pytest.mark.parametrize("override", ["a=[1", "a='x", "a={b:", "a"])
def test_what_cannot_be_read(override):
    with pytest.raises(ConfigError, match="cannot read the overrides"):
        expand([override], sweep=False)


def test_the_configuration_survives_as_yaml_and_as_json():
    config = load_config([*BASE, "prune=transformer", "prune.scope=global", "quantize=none"])
    assert isinstance(config.quantize, NoQuantize)
    assert not isinstance(config.prune, NoPrune)
    assert yaml.safe_load(to_yaml(config)) == to_plain(config)
    assert to_plain(config)["prune"]["scope"] == "global"
    assert OmegaConf.create(to_yaml(config)).model.source == "path:x"


OLD = json.loads((Path(__file__).parents[1] / "fixtures" / "configurations_of_version_1.json").read_text())


@pytest.mark.parametrize("experiment", OLD)
def test_a_configuration_of_the_first_release_means_the_same(experiment):
    """Written into manifests before settings of timing got a group of their own."""
    old = OLD[experiment]
    config = from_plain(old["config"], old["options"])
    now = OmegaConf.create(to_plain(config))
    for name, value in flat(old["config"]):
        group, _, key = name.rpartition(".")
        if name == "export.opset" and old["options"]["export"] == "optimum":
            value = 23  # its fusion raised it
        moved = {"target": "benchmark"}.get(group, group) if key in TIMING else group
        assert OmegaConf.select(now, f"{moved}.{key}" if group else key) == value, name


def test_what_took_the_place_of_an_option():
    assert replaced({"export": "optimum", "prune": "structured"}) == {"export": "torch"}
    with pytest.raises(ConfigError, match=r"unknown option for export(.|\n)*export=torch took its place"):
        load_config([*BASE, "export=optimum"])


TIMING = ("workloads", "max_seconds", "ratio_ci", "seed")


def flat(settings, prefix=""):
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def test_what_a_file_says_of_its_source_is_not_said_of_another():
    mine = load_config(["experiment=smollm2", "model.source=path:x", "model.license=mit"]).model
    assert (mine.base_model, mine.license, mine.sha256) == (None, "mit", None)
    assert load_config(["experiment=smollm2", "++model.source=path:x"]).model.base_model is None
    published = load_config(["experiment=smollm2"]).model
    assert None not in (published.base_model, published.license, published.sha256)
