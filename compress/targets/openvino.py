"""OpenVINO on this machine's CPU: the same ONNX files, compiled by it in place of onnxruntime."""

from collections.abc import Mapping
from typing import Any

from compress.config.target import OpenvinoTarget, Precision
from compress.errors import ConfigError
from compress.runner.machine import machine_facts
from compress.targets.local import ThisMachine

CAPABILITY = {Precision.f32: "FP32", Precision.bf16: "BF16", Precision.f16: "FP16"}  # OpenVINO's names
_OPENS = """
import openvino

# As it was timed: OpenVINO itself takes bf16 wherever the CPU has it, and the answers change.
settings = {{
    "INFERENCE_PRECISION_HINT": "{precision}",
    "INFERENCE_NUM_THREADS": {threads},
    "NUM_STREAMS": 1,
    "PERFORMANCE_HINT": "LATENCY",
    "ENABLE_CPU_PINNING": False,
}}
core = openvino.Core()
model = core.read_model("{model}")
input_names = [each.get_node().get_friendly_name() for each in model.inputs]
output_names = [each.get_node().get_friendly_name().removesuffix("/sink_port_0") for each in model.outputs]
{run}"""
_RUNS = """compiled = core.compile_model(model, "CPU", settings)


def run(feeds):
    given = compiled([feeds[name] for name in input_names], share_inputs=True)
    return dict(zip(output_names, given.to_tuple()))
"""
_RUNS_FIXED = """compiled = {}


def run(feeds):
    arrays = [feeds[name] for name in input_names]
    shapes = tuple(array.shape for array in arrays)
    if shapes not in compiled:  # once for each shape of inputs, as it was timed
        fixed = model.clone()
        fixed.reshape(dict(zip(fixed.inputs, shapes)))
        compiled[shapes] = core.compile_model(fixed, "CPU", settings)
    return dict(zip(output_names, compiled[shapes](arrays, share_inputs=True).to_tuple()))
"""


class Openvino(ThisMachine):
    advice = (
        "a graph of standard operators (export=torch; the fused one of a language model takes one text), "
        "or target=local; look whether it fits in memory"
    )

    def __init__(self, config: OpenvinoTarget) -> None:
        super().__init__(config)
        self.precision, self.fixed_shapes = config.precision, config.fixed_shapes

    def find_facts(self) -> Mapping[str, Any]:
        try:
            from compress.runner.with_openvino import runtime_facts
        except ModuleNotFoundError as error:
            raise ConfigError(
                "target=openvino needs a package that is not installed",
                found=f"no module {error.name}",
                next="pip install 'compress-toolkit[openvino]'",
            ) from None
        runtime = runtime_facts()
        check_precision(self.precision, runtime)
        return machine_facts(runtime)

    def runs_with(self) -> Mapping[str, Any]:
        settings = {"precision": self.precision.value, "fixed_shapes": self.fixed_shapes}
        return {"runtime": "openvino", "threads": self.threads(), "settings": settings}

    def opening(self, model: str, generates: bool) -> str:
        if generates:
            return "\n# onnxruntime-genai runs it in onnxruntime, not in OpenVINO, where it was timed.\n"
        run = _RUNS_FIXED if self.fixed_shapes else _RUNS
        return _OPENS.format(model=model, threads=self.threads(), precision=self.precision.value, run=run)


def check_precision(precision: Precision, runtime: Mapping[str, Any]) -> None:
    """Raise ConfigError where the CPU does not compute in it."""
    able = [each.value for each, name in CAPABILITY.items() if name in runtime["capabilities"]]
    if precision.value not in able:
        raise ConfigError(
            "this CPU does not compute in the precision asked for",
            found=f"target.precision={precision.value} on {runtime['device']}",
            allowed=", ".join(able),
        )
