"""Checks that any ONNX graph of ours must pass, whatever stage made it."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

from compress.errors import GateError

ADVICE = "quantize fewer layers, or prune less"
SPREAD_FLOOR = 1e-4  # of outputs around their mean, relative to it: below, the output is constant


def interface(graph: onnx.GraphProto) -> list[str]:
    """Inputs and outputs in order, as text: `input_ids: INT64 [batch_size, sequence_length]`."""
    return [_signature(value) for value in _values(graph)]


def check_interface(before: onnx.GraphProto, after: onnx.GraphProto) -> None:
    """Names, order, types and shapes of inputs and outputs are the same; else GateError.

    An open dimension may get another name, or the number that shape inference finds for it.
    """
    expected, actual = interface(before), interface(after)
    if len(expected) != len(actual) or not all(map(_fits, _values(before), _values(after))):
        raise GateError(
            "the inputs or outputs of the graph changed",
            found="; ".join(line for line in actual if line not in expected)
            or f"the order {'; '.join(actual)}",
            allowed="; ".join(line for line in expected if line not in actual) or "; ".join(expected),
        )


def check_operators(model: onnx.ModelProto) -> None:
    """Every operator is known to the installed onnxruntime at the graph's opset; else GateError.

    That it has a kernel for the types at hand, only a session can tell.
    """
    opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
    since: dict[tuple[str, str], list[int]] = {}
    newest: Counter[str] = Counter()
    for schema in get_all_operator_schema():
        since.setdefault((schema.domain, schema.name), []).append(schema.since_version)
        newest[schema.domain] = max(newest[schema.domain], schema.since_version)
    runtime = f"onnxruntime {onnxruntime.__version__}"
    own = {(function.domain, function.name) for function in model.functions}
    for domain, version in opsets.items():
        if domain in newest and version > newest[domain]:
            raise GateError(
                f"{runtime} does not know the graph's opset",
                found=f"{domain or 'ai.onnx'} {version}",
                allowed=f"at most {newest[domain]}",
                next="export with a lower opset, attention unfused: export.opset=18 export.fuse=false",
            )
    for node in model.graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        known = since.get((domain, node.op_type), [])
        if (domain, node.op_type) not in own and not any(v <= opsets.get(domain, 0) for v in known):
            raise GateError(
                f"{runtime} does not know an operator of the graph",
                found=f"{domain or 'ai.onnx'}.{node.op_type} at opset {opsets.get(domain, 'none')}",
                allowed=f"from opset {min(known)} on" if known else "operators of onnx and com.microsoft",
            )


def check_outputs(runs: Sequence[Mapping[str, np.ndarray]], what: str) -> None:
    """Outputs of different inputs are finite and not all the same; else GateError, `what` being the graph.

    One mapping from name to array a run; outputs whose shape differs from run to run are only held
    against NaN and infinity.
    """
    for name in runs[0] if runs else ():
        check_answers([np.asarray(run[name], np.float64) for run in runs], what, f"output {name}", "input")


def check_answers(
    answers: Sequence[np.ndarray] | np.ndarray, what: str, output: str, example: str, next: str = ADVICE
) -> None:
    """The answers to different examples are finite and not all the same; else GateError.

    `what` gives the `output`, one for each `example`. Answers of different shapes are only held against NaN
    and infinity.
    """
    broken = sum(not np.isfinite(answer).all() for answer in answers)
    if broken:
        raise GateError(
            f"{what} gives NaN or infinity",
            found=f"{output} not finite for {broken} of {len(answers)} {example}s",
            next=next,
        )
    if len(answers) < 2 or len({answer.shape for answer in answers}) > 1:
        return
    rows = np.asarray(answers).reshape(len(answers), -1)
    mean = rows.mean(0)
    spread = float(np.linalg.norm(rows - mean, axis=1).max() / max(float(np.linalg.norm(mean)), 1e-30))
    if spread < SPREAD_FLOOR or not rows.any():
        raise GateError(
            f"{what} gives the same {output} for every {example}",
            found=f"relative spread {spread:.1e} over {len(answers)} {example}s",
            allowed=f"at least {SPREAD_FLOOR:g}",
            next=next,
        )


def _values(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    constants = {tensor.name for tensor in graph.initializer}
    return [*(value for value in graph.input if value.name not in constants), *graph.output]


def _fits(before: onnx.ValueInfoProto, after: onnx.ValueInfoProto) -> bool:
    old, new = before.type.tensor_type, after.type.tensor_type
    shapes = list(old.shape.dim), list(new.shape.dim)
    return (
        (before.name, old.elem_type, len(shapes[0])) == (after.name, new.elem_type, len(shapes[1]))
        # what was a number must stay that number
        and all(not o.HasField("dim_value") or o == n for o, n in zip(*shapes, strict=True))
    )


def _signature(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
    shape = ", ".join(dim.dim_param or str(dim.dim_value) for dim in tensor.shape.dim)
    return f"{value.name}: {kind} [{shape}]"
