"""Models of OpenVINO on the CPU, compiled from the same ONNX files.

The settings of a job hold "precision", f32, bf16 or f16: what floats are multiplied in. Left to itself,
OpenVINO takes bf16 wherever the CPU has it, and every answer changes.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

import openvino
from openvino import properties
from openvino.properties import hint

from compress.runner.counters import affinity, memory
from compress.runner.worker import Failure, Model

DEVICE = "CPU"
PRECISIONS = {"f32": openvino.Type.f32, "bf16": openvino.Type.bf16, "f16": openvino.Type.f16}
PRODUCTS = ("FullyConnected", "MatMul", "Convolution")  # as OpenVINO calls its nodes
Shapes = tuple[tuple[int, ...], ...]  # of a graph's inputs
NOT_RUN, CONSTANT = "not_executed", "Const"


class OpenvinoModel(Model):
    """A request may hold `profile` more than others do: where a trace goes."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        super().__init__(request)
        asked = request.get("settings", {})
        self.trace: str | None = request.get("profile")
        # A graph whose shapes are open tells none of its nodes' in a trace, and is a sixth slower.
        self.fixed = asked.get("fixed_shapes", False) or self.trace is not None
        self.settings = {
            properties.inference_num_threads: request["threads"],
            properties.num_streams: 1,
            hint.performance_mode: hint.PerformanceMode.LATENCY,
            hint.inference_precision: PRECISIONS[asked.get("precision", "f32")],
            # Pinned to cores, a model waits wherever others work on one of them.
            hint.enable_cpu_pinning: False,
            properties.enable_profiling: self.trace is not None,
        }
        before, start = memory(), time.perf_counter()
        self.core = openvino.Core()
        self.models = [self.read(path) for path in self.paths]
        self.compiled: dict[tuple[int, Shapes | None], Any] = {}  # by graph and by fixed shapes
        for number in range(len(self.models)):
            for shapes in self.shapes_of_workloads(number) if self.fixed else [None]:
                self.graph(number, shapes)
        load_ms = (time.perf_counter() - start) * 1e3
        self.profiled: list[tuple[Any, int]] = []  # a graph and its calls, one a workload
        self.facts = {
            "load_ms": load_ms,
            "rss_before_bytes": before["rss_bytes"],
            "affinity": affinity(),
            "packages": {"openvino": openvino.__version__},
            "fixed_shapes": self.fixed,
        }
        if self.compiled:
            graph = next(iter(self.compiled.values()))
            self.facts |= {
                "providers": graph.get_property(properties.execution_devices),
                "threads": graph.get_property(properties.inference_num_threads),
                "precision": graph.get_property(hint.inference_precision).get_type_name(),
                "computes_in": computes_in(self.compiled.values()),
            }

    def shapes_of_workloads(self, number: int) -> set[Shapes]:
        """Those of the inputs of one graph; a workload that lacks one is told of when it runs."""
        import numpy

        found, wanted = set(), names(self.models[number].inputs)
        for path in self.workloads.values():
            with numpy.load(path, allow_pickle=False) as arrays:
                if set(wanted) <= set(arrays.files):
                    found.add(tuple(arrays[name].shape for name in wanted))
        return found

    def graph(self, number: int, shapes: Shapes | None) -> Any:
        if (number, shapes) not in self.compiled:
            model = self.models[number]
            if shapes is not None:
                model = model.clone()
                model.reshape(dict(zip(model.inputs, shapes, strict=True)))
            self.compiled[number, shapes] = self.core.compile_model(model, DEVICE, self.settings)
        return self.compiled[number, shapes]

    def read(self, path: str) -> Any:
        try:
            return self.core.read_model(path)
        except RuntimeError as error:
            raise Failure(cause(str(error))) from error

    def inputs(self) -> list[list[str]]:
        return [names(model.inputs) for model in self.models]

    def prepare(self, workload: str, feeds: list[dict[str, Any]]) -> list[Callable[[], Any]]:
        steps: list[Callable[[], Any]] = []
        for number, arrays in enumerate([list(of_graph.values()) for of_graph in feeds]):
            graph = self.graph(number, shapes_of(arrays) if self.fixed else None)
            if self.trace is not None:
                self.profiled.append((graph, 0))
            infer = graph.create_infer_request().infer
            steps.append(partial(infer, arrays, share_inputs=True, share_outputs=True))
        return steps

    def calls(self, workload: str, count: int) -> list[float]:
        ms = super().calls(workload, count)
        if self.profiled:
            compiled, calls = self.profiled[-1]  # workloads are traced one after another
            self.profiled[-1] = compiled, calls + count
        return ms

    def compute(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        arrays = [feeds[name] for name in names(self.models[0].inputs)]
        try:
            graph = self.graph(0, shapes_of(arrays) if self.fixed else None)
            given = graph(arrays, share_inputs=True)
        except RuntimeError as error:
            raise Failure(f"OpenVINO cannot run it on these inputs: {error}") from error
        found = dict(zip(names(graph.outputs), given.to_tuple(), strict=True))
        empty = [name for name, array in found.items() if not array.size]
        if empty:  # as of several texts side by side from its GroupQueryAttention, which takes one
            raise Failure(f"OpenVINO gives nothing for the output {empty[0]!r} on these inputs")
        return found

    def end_profiling(self) -> dict[str, str]:
        """Write what onnxruntime's trace would say: of each node its mean time, in every call made."""
        path, events, clock = f"{self.trace}.json", [], 0.0
        for compiled, calls in self.profiled:
            nodes = traced(compiled)
            for _ in range(calls):
                events.append({"cat": "Session", "name": "model_run", "ts": clock})
                events += [{**node, "ts": clock} for node in nodes]
                clock += 1.0
        with open(path, "w") as file:
            json.dump(events, file)
        return {"path": path}


def shapes_of(arrays: Iterable[Any]) -> Shapes:
    return tuple(array.shape for array in arrays)


def names(ports: Iterable[Any]) -> list[str]:
    """As the ONNX file calls its inputs or outputs; a port may have the names of other tensors, too."""
    return [port.get_node().get_friendly_name().removesuffix("/sink_port_0") for port in ports]


def traced(compiled: Any) -> list[dict[str, Any]]:
    """The nodes of a graph that ran, as onnxruntime's trace names things; `dur` in microseconds."""
    nodes = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = told(node)
        given = [value.get_source_output() for value in node.inputs()]
        # What is made of constants alone, such as weights in another order, is made at the first call only.
        made_once = given and all(told(value.get_node())["layerType"] == CONSTANT for value in given)
        if info.get("execTimeMcs", NOT_RUN) == NOT_RUN or made_once:
            continue
        facts = {
            "op_name": kind(info),
            "input_type_shape": shapes(given),
            "output_type_shape": shapes(node.outputs()),
        }
        name, micros = f"{node.get_friendly_name()}_kernel_time", int(info["execTimeMcs"])
        nodes.append({"cat": "Node", "name": name, "dur": micros, "args": facts})
    return nodes


def kind(info: Mapping[str, str]) -> str:
    """OpenVINO's name of a node; of a product with the type that it is computed in: FullyConnected i8."""
    name = info["layerType"]
    if name in PRODUCTS:
        return f"{name} {info['runtimePrecision']}"
    # One kernel for whatever stands in a row may be all of attention, or an addition.
    return f"{name}WithSoftmax" if name == "Subgraph" and "Softmax" in info["originalLayersNames"] else name


def told(node: Any) -> dict[str, str]:
    """What a compiled graph tells of a node: its type, the one it computes in, its time."""
    return {key: value.value for key, value in node.get_rt_info().items()}


def shapes(ports: Iterable[Any]) -> list[dict[str, list[int]]]:
    return [{port.get_element_type().get_type_name(): list(port.get_shape())} for port in ports]


def computes_in(compiled: Iterable[Any]) -> dict[str, int]:
    """Type -> how many products of the compiled graphs are computed in it."""
    nodes = [told(node) for each in compiled for node in each.get_runtime_model().get_ordered_ops()]
    return dict(Counter(node["runtimePrecision"] for node in nodes if node.get("layerType") in PRODUCTS))


def cause(text: str) -> str:
    """What OpenVINO's error says of an operator, without where in its sources that was noticed."""
    if missing := re.search(r"No conversion rule found for operations: (.*)", text):
        return f"OpenVINO has no operator {missing[1]}"
    if failed := re.search(r"Conversion is failed for: (.*)", text):
        return f"OpenVINO cannot read its operators {failed[1]}: {' '.join(text.split())}"
    if "Unable to read the model" in text:
        return "OpenVINO cannot read the file; it is no ONNX model"
    return text


def opener() -> Callable[[Mapping[str, Any]], Model]:
    return OpenvinoModel


def runtime_facts() -> dict[str, Any]:
    core = openvino.Core()
    capabilities = core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    return {
        "distribution": "openvino",
        "version": version("openvino"),
        "device": core.get_property(DEVICE, "FULL_DEVICE_NAME"),
        "capabilities": sorted(capabilities),
        "integer_products": ["QDQ"],  # the formats that it multiplies in integers; others become float
    }
