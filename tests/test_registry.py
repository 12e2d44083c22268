import subprocess
import sys
from dataclasses import dataclass

import pytest

from compress import config, registry
from compress.config.data import ImageData
from compress.config.prune import NoPrune
from compress.config.quantize import Int8Dynamic, Int8Static
from compress.config.run import register_schemas
from compress.errors import ConfigError
from compress.registry import OPTIONS, declared, implementation, option, skips


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "OPTIONS", {group: dict(known) for group, known in OPTIONS.items()})
    monkeypatch.setattr(registry, "_declared", dict(registry._declared))


class Child(Int8Static): ...


def test_an_option_is_found_by_its_exact_type(own_registry):
    @option("prune", "mine", "compress.errors:did_you_mean", works_on=("language_modeling",))
    @dataclass(kw_only=True)
    class Mine:
        share: float = 0.5

    assert registry.OPTIONS["prune"]["mine"] is Mine
    assert Mine().share == 0.5
    assert implementation(Mine()).__name__ == "did_you_mean"
    assert declared(Mine).works_on == ("language_modeling",)
    assert not skips(Mine())
    with pytest.raises(ConfigError, match=r"Child is no option of a group\n  allowed: .*Int8Static"):
        implementation(Child())


def test_what_a_task_does_itself_works_on_that_task_alone(own_registry):
    @option("evaluate", "mine", "compress.tasks.sentence_embedding.metrics:compare")
    @dataclass(kw_only=True)
    class Mine: ...

    assert declared(Mine).fits("sentence_embedding")
    assert not declared(Mine).fits("language_modeling")
    assert declared(Int8Dynamic).fits("sentence_embedding")
    assert declared(Int8Dynamic).fits("language_modeling")


def test_options_are_found_in_any_file_of_the_package(own_registry, tmp_path, monkeypatch):
    (tmp_path / "of_a_new_task.py").write_text(
        "from compress.registry import option\n"
        '@option("evaluate", "new", "compress.errors:did_you_mean", not_on=("language_modeling",))\n'
        "class New: ...\n"
    )
    monkeypatch.setattr(config, "__path__", [*config.__path__, str(tmp_path)])
    register_schemas()
    new = registry.OPTIONS["evaluate"]["new"]
    monkeypatch.delitem(sys.modules, new.__module__)
    assert declared(new).fits("sentence_embedding")
    assert not declared(new).fits("language_modeling")


def test_a_name_of_a_group_is_declared_once(own_registry):
    with pytest.raises(ValueError, match="prune=none is already declared"):
        option("prune", "none", None)(Child)


def test_an_option_without_an_implementation_skips_its_stage():
    assert skips(NoPrune())
    assert not skips(Int8Static())
    assert not skips("a value that is no option")
    with pytest.raises(ConfigError, match="prune=none does nothing"):
        implementation(NoPrune())


ALL = [kind for known in OPTIONS.values() for kind in known.values()]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_the_function_of_every_option_exists(kind):
    declaration = registry._declared[kind]
    assert OPTIONS[declaration.group][declaration.name] is kind
    if declaration.implementation is not None:
        assert callable(implementation(kind.__new__(kind)))


def test_an_implementation_is_imported_when_it_is_asked_for():
    lines = [
        "import sys",
        "import compress.config.run",
        "from compress.config.data import ImageData",
        "from compress.registry import implementation",
        "assert 'compress.data.images' not in sys.modules",
        "print(implementation(ImageData()).__module__)",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == implementation(ImageData()).__module__ == "compress.data.images"
