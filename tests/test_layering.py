"""Who may know whom: arithmetic at the bottom, story at the top, no way back up."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "compress"
# A module may import those of earlier lines only: nothing upward, and nothing of its own line.
LAYERS = [
    {"errors", "system"},
    {"schema", "graph", "registry"},
    {"config"},
    {"sources", "stages"},
    {"models", "data"},
    {"training"},
    {"prune", "recover", "export", "quantize", "evaluate", "benchmark", "report", "artifact"},
    {"judge"},
    {"pipeline"},
    {"search"},
    {"cli"},
    {"__main__"},
]
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}
RANK["__init__"] = len(LAYERS)
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path):
    """Modules that a file imports anywhere in it, by their full names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module == "compress":
                yield from (f"compress.{alias.name}" for alias in node.names)


def part(name):
    """compress.prune.least_squares -> prune; a name of the package itself is none."""
    words = name.split(".")
    return words[1] if words[0] == "compress" and len(words) > 1 else None


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_nothing_imports_upward_or_sideways(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    known = {found for name in imported(path) if (found := part(name)) and found != own} & set(RANK)
    if path == PACKAGE / "prune" / "reload.py":
        assert known <= {"models", "errors"}  # for types and errors; its main runs without the package
    wrong = sorted(module for module in known if RANK[module] >= RANK[own])
    assert not wrong, f"{own} may not know {wrong}"


def test_every_module_has_its_place():
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} <= set(RANK)


def test_the_check_itself_sees_imports(tmp_path):
    (tmp_path / "x.py").write_text(
        "def f():\n    from compress import cli\n    import compress.prune.repair\n"
    )
    assert {part(name) for name in imported(tmp_path / "x.py")} == {None, "cli", "prune"}


def test_the_runner_needs_only_numpy_and_onnxruntime():
    """It is copied to targets that have nothing of ours."""
    foreign = {name.split(".")[0] for name in imported(PACKAGE / "benchmark" / "runner.py")}
    assert foreign - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}


def test_only_the_harness_knows_its_extra_and_only_the_command_knows_it():
    users = {path for path in FILES if "lm_eval" in {name.split(".")[0] for name in imported(path)}}
    assert users == {PACKAGE / "cli" / "lm_eval.py"}
    assert {path for path in FILES if "compress.cli.main.lm_eval" in imported(path)} == {
        PACKAGE / "cli" / "main.py"
    }


def test_only_the_reader_of_timm_s_checkpoints_knows_the_vision_extra():
    extra = {"timm", "torchvision"}
    users = {path for path in FILES if extra & {name.split(".")[0] for name in imported(path)}}
    assert users == {PACKAGE / "models" / "timm_checkpoint.py"}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        # a wrong configuration is to fail in no time
        ("compress", ("torch", "transformers", "onnx", "matplotlib", "scipy")),
        ("compress.cli.main", ("torch", "transformers", "onnx", "matplotlib", "scipy")),
        ("compress.config.compose", ("torch", "transformers", "onnx", "matplotlib", "scipy")),
        ("compress.sources", ("torch", "transformers", "onnx", "matplotlib", "scipy")),
        # and a run that reuses every stage needs neither
        ("compress.pipeline", ("torch", "transformers", "torch_pruning", "optimum", "pyarrow")),
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(module, heavy):
    script = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
