"""Whether a target computes what onnxruntime computes here, before anything is timed there.

What a model gives for real inputs is compared and, on any other runtime than this process's, what each of its
operators gives by itself for what it reads. A model that fails names the first operator that differs.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from compress.benchmark import caches, rounding
from compress.benchmark.agreement import (
    ROUNDING,
    WHOLE,
    Difference,
    Tolerance,
    differences,
    widened,
    worst,
)
from compress.benchmark.culprit import Culprit, Feeds, first_alone, first_together
from compress.errors import GateError
from compress.graph.session import CPU, open_session, running
from compress.runner.with_onnxruntime import runtime_facts
from compress.schema.gate import Gate
from compress.schema.workload import Workload
from compress.stages.result import gate
from compress.targets import Target
from compress.targets.outputs import outputs
from compress.tasks import Processor

GATE = "the target computes what onnxruntime computes here"
SMALL = 16  # tokens of a language model whose operators are looked at one by one
SHORT = 4  # examples of one batch; of texts the first 4, 8, 12 and 16 words, so that there is padding


def check_inputs(processor: Processor, examples: Any, workloads: Iterable[str]) -> list[Feeds]:
    """A few at once, texts short and of different lengths, and real ones at the sizes of the workloads."""
    feeds = [processor.workload(examples, Workload.parse(workload)) for workload in workloads]
    if caches.is_language_model(feeds[0]):
        return feeds
    few = examples[:SHORT]
    if isinstance(examples[0], str):
        few = [" ".join(text.split()[: 4 * place]) for place, text in enumerate(few, 1)]
    return [*processor.batches(few, SHORT), *feeds]


def check(target: Target, graphs: Mapping[str, Path], feeds: Sequence[Feeds], name: str) -> list[Gate]:
    """The gate of each graph of a model, on batches that hold at least its inputs.

    Raises GateError naming the operator that differs first, BenchmarkError where the target cannot run one.
    """
    several = len(graphs) > 1
    return [
        _check(target, path, feeds, name, f"{graph}.onnx: {GATE}" if several else GATE)
        for graph, path in graphs.items()
    ]


def _check(target: Target, path: Path, feeds: Sequence[Feeds], name: str, title: str) -> Gate:
    def there(model: Path, batches: Sequence[Feeds]) -> list[Feeds]:
        return [dict(each) for each in outputs(target, model, batches, name)]

    session = Here(path)
    batches = session.batches(feeds)
    ours = [session.run(batch) for batch in batches]
    found = differences(ours, there(path, batches))
    computes_in = precision(target, path)
    allowed = _allowed(path, batches, ours, found, computes_in)
    wrong = None if _hold(allowed, found) else max(found, key=lambda output: found[output].relative)
    alone = 0
    if wrong or not is_here(target):
        small = session.small(batches)
        culprit, alone = first_alone(path, small, there, computes_in)
        if wrong and culprit is None:
            culprit = first_together(path, small, there, allowed[wrong])
        if wrong or culprit:
            raise _refused(f"{name}, {path.name}", computes_in, wrong, found, allowed, culprit)
    numbers = worst(found.values())
    return gate(
        title,
        min_cosine=numbers.cosine,
        largest_relative_difference=numbers.relative,
        allowed_cosine=min(each.cosine for each in allowed.values()),
        allowed_difference=max(each.relative for each in allowed.values()),
        same_largest=numbers.same_largest,
        operators_alone=float(alone),
        batches=float(len(batches)),
    )


def check_same(path: Path, like: Path, feeds: Sequence[Feeds], name: str) -> Gate:
    """The gate that the graph `path` gives here what the graph `like` gives, but for rounding.

    Raises GateError where it gives something else.
    """
    session, other = Here(like), Here(path)
    batches = session.batches(feeds)
    ours = [session.run(batch) for batch in batches]
    found = differences(ours, [other.run(batch) for batch in batches])
    allowed = _allowed(like, batches, ours, found, own_precision(like))
    if not _hold(allowed, found):
        wrong = max(found, key=lambda output: found[output].relative)
        raise GateError(
            f"{name} does not compute what the graph that it was made of computes",
            found=f"output {wrong}: {found[wrong]}",
            allowed=allowed[wrong],
        )
    numbers = worst(found.values())
    return gate(
        "it computes what the graph that it was made of computes",
        min_cosine=numbers.cosine,
        largest_relative_difference=numbers.relative,
        allowed_cosine=min(each.cosine for each in allowed.values()),
        allowed_difference=max(each.relative for each in allowed.values()),
    )


def whole(
    target: Target, path: Path, feeds: Sequence[Feeds], there: Sequence[Feeds], name: str
) -> Difference:
    """How what a graph gave on a target that is not reached any more differs from what it gives here.

    Raises GateError naming the output where that is not the same.
    """
    session = Here(path)
    batches = [{each: batch[each] for each in session.inputs} for batch in feeds]
    ours = [session.run(batch) for batch in batches]
    found, computes_in = differences(ours, there), precision(target, path)
    allowed = _allowed(path, batches, ours, found, computes_in)
    if not _hold(allowed, found):
        wrong = max(found, key=lambda output: found[output].relative)
        raise GateError(
            f"{name} computes something else on the target than here",
            found=f"output {wrong}: {found[wrong]}",
            allowed=f"{allowed[wrong]} ({computes_in})",
            next="another onnxruntime there, or a model without the operators that differ",
        )
    return worst(found.values())


def _allowed(
    path: Path,
    batches: Sequence[Feeds],
    ours: Sequence[Feeds],
    found: Mapping[str, Difference],
    computes_in: str,
) -> dict[str, Tolerance]:
    """Output -> what it may differ by: more where the graph itself magnifies rounding."""
    allowed = dict.fromkeys(found, WHOLE[computes_in])
    if not _hold(allowed, found):
        moved = rounding.noise(path, batches, ours, ROUNDING[computes_in])
        allowed = {output: widened(computes_in, moved[output]) for output in found}
    return allowed


def is_here(target: Target) -> bool:
    """Whether a target runs models with the onnxruntime of this process, on the CPU."""
    with_what = target.runs_with()
    ours = not {"runtime", "command"} & with_what.keys() and with_what.get("provider", CPU) == CPU
    return ours and target.facts()["runtime"] == runtime_facts()


def precision(target: Target, path: Path) -> str:
    """The shortest floats that it computes in there: the target's setting, or the graph's own."""
    with_what = target.runs_with()
    told = str(with_what.get("settings", {}).get("precision", "f32"))
    if with_what.get("provider") == "CUDAExecutionProvider":
        told = "tf32"  # what its products are rounded to unless it is told otherwise
    return max(told, own_precision(path), key=list(WHOLE).index)


def own_precision(path: Path) -> str:
    """The shortest floats of a graph's weights."""
    kinds = {tensor.data_type for tensor in onnx.load(path, load_external_data=False).graph.initializer}
    return "bf16" if TensorProto.BFLOAT16 in kinds else "f16" if TensorProto.FLOAT16 in kinds else "f32"


class Here:
    """An ONNX file in a session of this process."""

    def __init__(self, path: Path) -> None:
        self.session = open_session(path)
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]

    def run(self, batch: Feeds) -> Feeds:
        with running():
            return dict(zip(self.outputs, self.session.run(self.outputs, batch), strict=True))

    def batches(self, feeds: Sequence[Feeds]) -> list[Feeds]:
        """Of each its own inputs; a cache of zeros holds what a text leaves in it instead."""
        return [self._with_cache({name: batch[name] for name in self.inputs}) for batch in feeds]

    def _with_cache(self, batch: Feeds) -> Feeds:
        past = {name: each for name, each in batch.items() if name.startswith(caches.PAST)}
        length = max((each.shape[2] for each in past.values()), default=0)
        if not length or any(each.any() for each in past.values()):
            return batch
        left = self.run(_language(batch, np.resize(_spread(batch), (len(batch["input_ids"]), SMALL)), {}))
        of_text = {name: left[name.replace(caches.PAST, caches.PRESENT, 1)] for name in past}
        places = np.arange(length) % SMALL
        return batch | {name: np.ascontiguousarray(each[:, :, places]) for name, each in of_text.items()}

    def small(self, batches: Sequence[Feeds]) -> list[Feeds]:
        """What operators are looked at with: the first batch and the smallest; of a language model some
        tokens, and one after them."""
        smallest = min(batches, key=lambda batch: sum(each.size for each in batch.values()))
        if not caches.is_language_model(smallest):
            return [batches[0], *([] if smallest is batches[0] else [smallest])]
        ids = np.resize(_spread(max(batches, key=lambda batch: batch["input_ids"].size)), (1, SMALL))
        first = _language(smallest, ids, {})
        left = self.run(first)
        past = {
            name: left[name.replace(caches.PAST, caches.PRESENT, 1)]
            for name in smallest
            if name.startswith(caches.PAST)
        }
        return [first, _language(smallest, ids[:, :1], past)]


def _spread(batch: Feeds) -> np.ndarray:
    """Tokens of a batch; of one alone its neighbours by number, too, which a cache of one would not tell
    from another."""
    ids = batch["input_ids"].reshape(-1)
    return ids if len(ids) >= SMALL else np.concatenate([np.maximum(ids - step, 0) for step in range(SMALL)])


def _language(like: Feeds, ids: np.ndarray, past: Mapping[str, np.ndarray]) -> Feeds:
    """Inputs of a language model for tokens (batch, tokens) after what is cached, empty where nothing is."""
    batch, tokens = ids.shape
    length = max((each.shape[2] for each in past.values()), default=0)
    made = {
        "input_ids": ids,
        "attention_mask": np.ones((batch, length + tokens)),
        "position_ids": np.tile(np.arange(length, length + tokens), (batch, 1)),
    }
    for name, each in like.items():
        if name.startswith(caches.PAST):
            made[name] = past.get(name, np.zeros((batch, each.shape[1], 0, each.shape[3])))
    return {
        name: np.ascontiguousarray(made.get(name, each)).astype(each.dtype) for name, each in like.items()
    }


def _hold(allowed: Mapping[str, Tolerance], found: Mapping[str, Difference]) -> bool:
    return all(allowed[output].holds(each) for output, each in found.items())


def _refused(
    name: str,
    computes_in: str,
    wrong: str | None,
    found: Mapping[str, Difference],
    allowed: Mapping[str, Tolerance],
    culprit: Culprit | None,
) -> GateError:
    said = [f"output {wrong}: {found[wrong]}"] if wrong else ["an operator that the outputs hide"]
    said += [str(culprit)] if culprit else ["no operator differs by itself: several together do"]
    return GateError(
        f"{name}: the target does not compute what onnxruntime computes here",
        found="; ".join(said),
        allowed=f"{allowed[wrong]} ({computes_in})" if wrong else culprit and culprit.allowed,
        next="nothing was timed: another release, provider or precision of the target's runtime, or a model "
        "without that operator",
    )
