"""What ships: layout, manifest, checksums, verification.

artifact/
  model.onnx              the whole model: tokens in, result out; large weights beside it in model.onnx_data;
                          a model of several graphs has a file for each, by its name; in the layout of
                          transformers.js it is onnx/model_quantized.onnx and the like (`schema/layout.py`)
  config.json, tokenizer* what is needed to feed it
  genai_config.json       what onnxruntime-genai needs to run a language model that was exported for it
  checkpoint/             the same model before quantization, for stock transformers
  model-FORMAT.gguf       likewise for llama.cpp, where ship.gguf asks for it
  check.npz               a stored input and the output this machine computed for it; of the graph NAME.onnx
                          among several, check_NAME.npz
  README.md               model card
  manifest.json           lineage, configuration, versions, sha256 of every file
  SHA256SUMS              for `sha256sum -c`
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from compress.errors import ArtifactError
from compress.graph import MODEL, named_graphs
from compress.graph.files import move_graph
from compress.graph.session import open_session
from compress.graph.untrusted import inspect_and_try
from compress.schema.layout import PLAIN, TRANSFORMERS_JS, dtype, graph_name
from compress.stages.result import read_result
from compress.system.disk import sha256_file

MANIFEST_VERSION = 1
GENAI = "genai_config.json"
_SUMS, _MANIFEST = "SHA256SUMS", "manifest.json"
_MAX_MANIFEST = 50 * 10**6  # bytes
_FEEDING = (".json", ".txt", ".model", ".jinja")  # endings of what feeds a graph: tokenizer, preprocessing
# They describe checkpoint/: pooling, normalisation and what was cut are inside the graph.
_NOT_FEEDING = ("modules.json", "pruning.json")
# Another CPU has other integer kernels: the direction of an embedding may turn by rounding, no more.
MIN_COSINE = 0.999


@dataclass(frozen=True, kw_only=True)
class Manifest:
    name: str
    base_model: str
    source: str
    license: str
    lineage: tuple[str, ...]
    config: dict[str, Any]
    environment: dict[str, Any]
    splits: dict[str, str]  # name -> fingerprint
    headline: dict[str, Any]
    opset: int
    options: dict[str, str] = field(default_factory=dict)  # config group -> option, for `reproduce`
    files: dict[str, str] = field(default_factory=dict)  # path -> sha256
    manifest_version: int = MANIFEST_VERSION


_ADAPTER = TypeAdapter(Manifest)


def write_artifact(
    folder: Path,
    *,
    graph: Path,
    checkpoint: Path,
    inputs: Mapping[str, np.ndarray],
    card: str,
    manifest: Manifest,
    keep_checkpoint: bool,
    layout: str = PLAIN,
    beside: Path | None = None,
) -> None:
    """Assemble the artifact beside `folder` and rename it into place: there is never half of one.

    onnxruntime-genai gets the threads that the manifest says the times were taken with.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        of_checkpoint = read_result(checkpoint).ships
        feeding = [name for name in of_checkpoint if name.endswith(_FEEDING) and name not in _NOT_FEEDING]
        _copy(graph, read_result(graph).ships, partial)
        _copy(checkpoint, [name for name in feeding if "/" not in name], partial)
        if keep_checkpoint:
            _copy(checkpoint, of_checkpoint, partial / "checkpoint")
        if beside is not None:
            _copy(beside, read_result(beside).ships, partial)
        (partial / "README.md").write_text(card)
        if (partial / GENAI).is_file():
            _set_threads(partial / GENAI, manifest.environment.get("threads"))
        if layout == TRANSFORMERS_JS:
            _as_transformers_js(partial, str(manifest.headline.get("variant")))
        for name, path in named_graphs(partial).items():
            np.savez(partial / _check_file(name), **_stored_pair(path, inputs))  # type: ignore[arg-type]
        _seal(partial, manifest)
        swap(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _set_threads(genai_config: Path, threads: int | None) -> None:
    """Of every session; without, onnxruntime-genai takes as many as it likes."""
    config = json.loads(genai_config.read_text())
    for part in config.get("model", {}).values():
        if threads and isinstance(part, dict) and "session_options" in part:
            part["session_options"]["intra_op_num_threads"] = threads
    genai_config.write_text(json.dumps(config, indent=4) + "\n")


def _as_transformers_js(folder: Path, variant: str) -> None:
    """Move the graph and its external weights to where transformers.js looks for them, and name its dtype.

    Raises ArtifactError for a model of several graphs.
    """
    graphs = named_graphs(folder)
    if list(graphs) != [MODEL]:
        raise ArtifactError(
            "a model of several graphs has no layout of transformers.js",
            found=", ".join(graphs),
            allowed="one graph; ship.layout=plain",
        )
    old, new = graphs[MODEL], folder / graph_name(variant)
    new.parent.mkdir()
    beside = move_graph(old, new)
    path = folder / "config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    config["transformers.js_config"] = {"dtype": dtype(variant)}
    if beside:
        config["transformers.js_config"]["use_external_data_format"] = True
    path.write_text(json.dumps(config, indent=2) + "\n")
    if (folder / GENAI).is_file():
        genai = json.loads((folder / GENAI).read_text())
        genai["model"]["decoder"]["filename"] = new.relative_to(folder).as_posix()
        (folder / GENAI).write_text(json.dumps(genai, indent=4) + "\n")


def _copy(source: Path, names: Iterable[str], target: Path) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def swap(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`, or leave `folder` as it was."""
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(new, folder)
    except BaseException:
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def verify(folder: Path) -> Manifest:
    """Check sums, layout, graph and the stored pair; raises ArtifactError at the first failure."""
    manifest = check_files(folder)
    graphs = named_graphs(folder)
    if not graphs:
        raise ArtifactError("the artifact holds no graph", next="copy the whole folder again")
    for name, path in graphs.items():
        _check_graph(path, folder / _check_file(name))
    return manifest


def _check_file(graph: str) -> str:
    """Of the stored input and output of the graph of this name."""
    return "check.npz" if graph == MODEL else f"check_{graph}.npz"


def check_files(folder: Path, beside: bool = True) -> Manifest:
    """Check layout and sums alone; raises ArtifactError at the first failure.

    Without `beside` the sums are only of what runs: not of checkpoint/ and a GGUF file, which are larger.
    """
    manifest = _read_manifest(folder)
    listed = set(manifest.files) | {_MANIFEST, _SUMS}
    # A link to a folder is a file here: rglob does not look behind it.
    files = [p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()]
    present = {p.relative_to(folder).as_posix() for p in files}
    for name in sorted(listed):
        _check_inside(folder, name)
    if present != listed:
        extra, missing = sorted(present - listed), sorted(listed - present)
        raise ArtifactError(
            "the artifact's files are not those of its manifest",
            found=f"missing: {', '.join(missing) or 'none'}; not listed: {', '.join(extra) or 'none'}",
            next="copy the whole folder again",
        )
    for name in sorted(listed):
        if not (folder / name).is_file():  # a pipe would never end
            raise ArtifactError(f"{name} is not a file", next="copy the artifact again")
    for name, expected in sorted(manifest.files.items()):
        if not beside and (name.startswith("checkpoint/") or name.endswith(".gguf")):
            continue
        actual = sha256_file(folder / name)
        if actual != expected:
            raise ArtifactError(
                f"{name} is not the file that was shipped",
                found=f"sha256 {actual}",
                allowed=f"sha256 {expected}",
                next="copy the artifact again",
            )
    if (folder / _SUMS).read_bytes() != _sums(folder, manifest).encode():
        raise ArtifactError(
            f"{_MANIFEST} and {_SUMS} do not agree: one of them was changed", next="copy the artifact again"
        )
    return manifest


def _seal(folder: Path, manifest: Manifest) -> None:
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    manifest = replace(manifest, files={name: sha256_file(folder / name) for name in files})
    (folder / _MANIFEST).write_bytes(_ADAPTER.dump_json(manifest, indent=2) + b"\n")
    (folder / _SUMS).write_bytes(_sums(folder, manifest).encode())


def _sums(folder: Path, manifest: Manifest) -> str:
    """What `sha256sum` prints for every file, the manifest included."""
    sums = {**manifest.files, _MANIFEST: sha256_file(folder / _MANIFEST)}
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def _compared(outputs: Iterable[str]) -> list[str]:
    """All outputs but a language model's keys and values, which are large and which logits tell of."""
    return [name for name in outputs if not name.startswith("present.")]


def _stored_pair(model: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`inputs` may hold more than this graph takes."""
    session = open_session(model)
    names = _compared(output.name for output in session.get_outputs())
    feeds = {value.name: inputs[value.name] for value in session.get_inputs() if value.name in inputs}
    outputs = session.run(names, feeds)
    return {
        **{f"in.{name}": value for name, value in feeds.items()},
        **{f"out.{name}": value for name, value in zip(names, outputs, strict=True)},
    }


def _read_manifest(folder: Path) -> Manifest:
    path = folder / _MANIFEST
    if not path.is_file():
        near = (folder / "artifact", folder / "latest" / "artifact")  # given the run, the experiment
        meant = next((each for each in near if (each / _MANIFEST).is_file()), None)
        raise ArtifactError(
            "no artifact in this folder",
            found=f"no {_MANIFEST} in {folder}" if folder.is_dir() else f"no folder {folder}",
            allowed="an artifact folder, e.g. outputs/minilm/latest/artifact",
            next=f"compress verify {meant}" if meant else None,
        )
    try:
        if path.stat().st_size > _MAX_MANIFEST:
            raise OSError(f"{_MANIFEST} is larger than {_MAX_MANIFEST} bytes")
        manifest = _ADAPTER.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ArtifactError(
            f"{_MANIFEST} is damaged",
            found=f"{_damage(error)} in {path}",
            allowed="the file as it was shipped",
            next="copy the artifact again",
        ) from None
    if manifest.manifest_version != MANIFEST_VERSION:
        raise ArtifactError(
            "the manifest has another version", found=manifest.manifest_version, allowed=MANIFEST_VERSION
        )
    return manifest


def _damage(error: OSError | ValidationError) -> str:
    """What was wrong first: the field, where it is one, and why."""
    if isinstance(error, OSError):
        return str(error)
    first = error.errors(include_url=False)[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))


def _check_inside(folder: Path, name: str) -> None:
    path = PurePosixPath(name)
    try:
        inside = (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, links in a circle
        inside = False
    if path.is_absolute() or ".." in path.parts or not inside:
        raise ArtifactError(
            "a file of the artifact lies outside its folder",
            found=name,
            next="do not use this artifact: it was tampered with",
        )


def _check_graph(path: Path, pair: Path) -> None:
    """The graph is sound and gives the stored output for the stored input."""
    graph, outputs = inspect_and_try(path, pair, ArtifactError)
    stored = [output for output in outputs if output.cosine is not None]
    if {output.name for output in stored} != set(_compared(graph.outputs)):
        raise ArtifactError(
            f"{pair.name} does not hold the outputs of {path.name}",
            found=", ".join(output.name for output in stored) or "none",
            allowed=", ".join(_compared(graph.outputs)),
        )
    for output in stored:
        if output.cosine is None or not output.cosine >= MIN_COSINE:
            raise ArtifactError(
                f"output {output.name} differs from the stored one",
                found=f"shape {output.shape}, cosine {output.cosine:.5f}",
                allowed=f"shape {output.wanted_shape}, cosine at least {MIN_COSINE}",
                next="this machine's onnxruntime computes something else: compare versions in manifest.json",
            )
