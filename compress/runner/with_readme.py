"""Models as the code of a model card opens them: what a stranger measures who copies it from README.md.

`path` of a request is README.md in the folder of the model. Its code is executed there, whole; then what it
left is called: `run(feeds)`, or onnxruntime-genai's `model`.
"""

import os
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from compress.runner.counters import affinity, memory
from compress.runner.worker import Failure, Model


def code_of(readme: Path, language: str = "python") -> str | None:
    """The code of a model card, None where it has none."""
    text = readme.read_text(encoding="utf-8")
    found = re.search(rf"^(`{{3,}}){language}\n(.*?)^\1$", text, re.MULTILINE | re.DOTALL)
    return found[2] if found else None


class ReadmeModel(Model):
    def __init__(self, request: Mapping[str, Any]) -> None:
        super().__init__(request)
        [readme] = map(Path, self.paths)
        code = code_of(readme)
        if code is None:
            raise Failure(f"{readme.name} has no Python")
        self.workloads = {name: os.path.abspath(path) for name, path in self.workloads.items()}
        os.chdir(readme.parent)
        before, start = memory(), time.perf_counter()
        self.names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(code, readme.name, "exec"), self.names)
        self.facts = {
            "load_ms": (time.perf_counter() - start) * 1e3,
            "rss_before_bytes": before["rss_bytes"],
            "affinity": affinity(),
        }

    def inputs(self) -> list[list[str]]:
        return [self.names["input_names"] if "run" in self.names else ["input_ids", "attention_mask"]]

    def prepare(self, workload: str, feeds: list[dict[str, Any]]) -> list[Callable[[], Any]]:
        [given] = feeds
        if "run" in self.names:
            return [partial(self.names["run"], given)]
        return [generation(self.names["og"], self.names["model"], **given)]

    def compute(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self.names["run"](feeds))


def generation(og: Any, model: Any, input_ids: Any, attention_mask: Any) -> Callable[[], None]:
    """Reads the tokens behind as many as are cached, and chooses the next one; the same in every call."""
    import numpy

    batch, tokens = input_ids.shape
    past = attention_mask.shape[1] - tokens
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=past + tokens + 1, do_sample=False, batch_size=batch)
    generator = og.Generator(model, params)
    given = numpy.ascontiguousarray(input_ids.astype(numpy.int32))
    if past:
        generator.append_tokens(numpy.resize(given, (batch, past)))

    def call() -> None:
        generator.rewind_to(past)
        generator.append_tokens(given)
        generator.generate_next_token()

    return call


def opener() -> Callable[[Mapping[str, Any]], Model]:
    return ReadmeModel
