"""Models of onnxruntime, on any of its execution providers."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import onnxruntime
from onnxruntime.capi.build_and_package_info import package_name

from compress.runner.attention import SWITCH, choose_attention
from compress.runner.counters import affinity, memory
from compress.runner.worker import Model

CPU = "CPUExecutionProvider"


class OnnxruntimeModel(Model):
    """A request may hold more than others do: `caches`, `capacity` and `scores`, for a language model that
    writes new keys and values into the memory that it reads the old ones from (`collect.py`), and `profile`,
    where a trace goes."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        super().__init__(request)
        self.caches: dict[str, str] = request.get("caches", {})
        self.capacity: dict[str, int] = request.get("capacity", {})
        self.feeds: dict[str, list[dict[str, Any]]] = {}  # whoever binds memory keeps it
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = request["threads"]
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 4
        if "profile" in request:
            options.enable_profiling = True
            options.profile_file_prefix = request["profile"]
        switch = {SWITCH: choose_attention(max(request["scores"].values()))} if self.caches else {}
        providers = list(dict.fromkeys([request.get("provider", CPU), CPU]))  # what one lacks the next runs
        before, start = memory(), time.perf_counter()
        self.sessions = [
            onnxruntime.InferenceSession(path, options, providers=providers) for path in self.paths
        ]
        self.facts = {
            "load_ms": (time.perf_counter() - start) * 1e3,
            "rss_before_bytes": before["rss_bytes"],
            "providers": self.sessions[0].get_providers(),
            "threads": options.intra_op_num_threads,
            "optimization_level": options.graph_optimization_level.name,
            "arena": options.enable_cpu_mem_arena,
            "memory_pattern": options.enable_mem_pattern,
            "affinity": affinity(),
            "packages": {package_name: onnxruntime.__version__},
            **switch,
        }

    def inputs(self) -> list[list[str]]:
        return [[value.name for value in session.get_inputs()] for session in self.sessions]

    def prepare(self, workload: str, feeds: list[dict[str, Any]]) -> list[Callable[[], Any]]:
        self.feeds[workload] = feeds
        return [
            partial(session.run_with_iobinding, self.bind(session, of_graph, self.capacity[workload]))
            if self.caches.keys() & of_graph.keys()
            else partial(session.run, None, of_graph)
            for session, of_graph in zip(self.sessions, feeds, strict=True)
        ]

    def compute(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        [session] = self.sessions
        names = [value.name for value in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))

    def bind(self, session: Any, feeds: dict[str, Any], capacity: int) -> Any:
        """Feeds and outputs at fixed places; a cache's old and new contents at the same one.

        Every call writes behind the same old tokens: how many there are, the attention mask says.
        """
        import numpy

        binding = session.io_binding()
        for name, array in feeds.items():
            if name not in self.caches:
                binding.bind_cpu_input(name, array)
                continue
            batch, heads, past, size = array.shape
            buffer = numpy.zeros((batch, heads, max(past, capacity), size), array.dtype)
            buffer[:, :, :past] = array
            feeds[name] = buffer
            place = ("cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data)
            binding.bind_input(name, *place)
            binding.bind_output(self.caches[name], *place)
        for output in session.get_outputs():
            if output.name not in self.caches.values():
                binding.bind_output(output.name, "cpu")
        return binding

    def end_profiling(self) -> dict[str, str]:
        return {"path": self.sessions[0].end_profiling()}


def opener() -> Callable[[Mapping[str, Any]], Model]:
    return OnnxruntimeModel


def runtime_facts() -> dict[str, Any]:
    return {
        "distribution": package_name,  # onnxruntime, onnxruntime-gpu, onnxruntime-openvino, ...
        "version": onnxruntime.__version__,
        "providers": onnxruntime.get_available_providers(),
    }
