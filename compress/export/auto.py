"""torch in, ONNX out: attention as one operator where that graph passes its gate, else as torch does it."""

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from compress.config.export import AutoExport, GenaiExport, TorchExport
from compress.errors import CompressError
from compress.export import genai, torch_onnx
from compress.schema.gate import Gate
from compress.stages.result import read_result, write_result

COST = "plain operators, over a thousand a token, which copy the cache for each"


def export(config: AutoExport, checkpoint: Path, splits: Path, out: Path) -> None:
    """Write the fused graph, or the plain one; the first gate of `out/stage.json` then says why.

    Raises what `export=torch` raises.
    """
    with TemporaryDirectory(dir=out) as scratch:
        fused = Path(scratch)
        try:
            genai.export(GenaiExport(**asdict(config)), checkpoint, splits, fused)
        except CompressError as error:
            write_result(out, gates=[_failed(error, fused)])
        else:
            for each in fused.iterdir():
                each.rename(out / each.name)
            return
    torch_onnx.export(TorchExport(**asdict(config)), checkpoint, splits, out)


def _failed(error: CompressError, fused: Path) -> Gate:
    """What the fused graph failed on, with the numbers that were noted before."""
    numbers = {name: number for gate in read_result(fused).gates for name, number in gate.numbers.items()}
    reason, *rest = (line.strip() for line in str(error).splitlines())
    found = next((line.partition(":")[2].strip() for line in rest if line.startswith("found:")), "")
    said = f"{reason} ({found})" if found else reason
    return Gate(name=f"fused graph: {said}; so {COST}", passed=False, numbers=numbers)
