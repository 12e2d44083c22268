import importlib
import pkgutil

import pytest

import compress
from compress import registry
from compress.config.run import OPTIONS, SKIPS
from compress.errors import ConfigError

for module in pkgutil.walk_packages(compress.__path__, "compress."):  # most are imported when needed
    if not module.name.endswith(("__main__", ".harness")):  # harness needs an extra
        importlib.import_module(module.name)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_functions", dict(registry._functions))


class Known: ...


class Child(Known): ...


def test_a_function_is_found_by_the_exact_type():
    @registry.register(Known)
    def function(config):
        return 3

    assert registry.implementation(Known())(Known()) == 3
    with pytest.raises(ConfigError, match=r"no implementation for Child\n  allowed: .*Known"):
        registry.implementation(Child())


def test_a_type_is_registered_once():
    registry.register(Known)(print)
    with pytest.raises(ValueError, match="already registered"):
        registry.register(Known)(repr)


def test_every_option_that_does_something_is_registered():
    for options in OPTIONS.values():
        for option in options.values():
            assert option in SKIPS or option in registry._functions, option
