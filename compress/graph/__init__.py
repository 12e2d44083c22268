"""Everything that opens, checks or edits an ONNX file."""

from pathlib import Path

MODEL = "model"  # the name of the graph of a variant that has one
SUFFIX = ".onnx"


def graph_path(folder: Path, name: str = MODEL) -> Path:
    """Where the graph of this name lies in a variant's folder; external weights lie beside it.

    The only graph of an artifact in the layout of transformers.js lies in its folder `onnx`.
    """
    path = folder / f"{name}{SUFFIX}"
    below = sorted(folder.glob(f"onnx/{MODEL}*{SUFFIX}")) if name == MODEL and not path.exists() else []
    return below[0] if len(below) == 1 else path


def named_graphs(folder: Path) -> dict[str, Path]:
    """Name -> ONNX file of every graph of a variant, in the order of the names.

    Most variants have one, `model`; an encoder and a decoder, or an image and a text tower, have their own.
    """
    graphs = {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}
    if not graphs and (only := graph_path(folder)).is_file():
        return {MODEL: only}
    return graphs


def onnx_files(model: Path) -> list[Path]:
    """Its graphs, where `model` is the folder of a variant; else the file itself."""
    return list(named_graphs(model).values()) if model.is_dir() else [model]


def graph_files(folder: Path) -> list[Path]:
    """The ONNX files of a variant and the external weights beside them, sorted."""
    graphs = named_graphs(folder).values()
    return sorted(path for graph in graphs for path in graph.parent.glob(f"{graph.name}*"))


def is_graph_file(name: str) -> bool:
    """Whether this is the name of a graph in a variant's folder, or of weights beside one."""
    return "/" not in name and SUFFIX in name


def shipped_files(folder: Path) -> list[str]:
    """Names of what a variant needs to run: its graphs, their weights, what onnxruntime-genai reads."""
    return [path.name for path in (*graph_files(folder), *folder.glob("genai_config.json"))]
