"""Who may know whom: the contracts of pyproject.toml catch what they forbid, and what they cannot say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ARROWS = {  # an import that each contract forbids: file -> a line for it, and how import-linter names it
    "models/padding.py": ("from compress.judge import pareto", "models.padding -> compress.judge"),
    "prune/depth.py": (
        "def f():\n    import compress.quantize.gptq",
        "prune.depth -> compress.quantize.gptq",
    ),
    "report/format.py": ("from compress.stages import store", "report.format -> compress.stages"),
    "prune/reload.py": ("from compress.data import Splits", "prune.reload -> compress.data"),
    "metrics/statistics.py": ("import lm_eval", "metrics.statistics -> lm_eval"),
    "models/preprocessing.py": ("import timm", "models.preprocessing -> timm"),
    "cli/generate.py": ("import compress.cli.lm_eval_tasks", "cli.generate -> compress.cli.lm_eval_tasks"),
    "judge/pareto.py": ("import compress.pipeline", "judge.pareto -> compress.pipeline"),
}


def lint(folder: Path) -> str:
    """What import-linter says of the package in `folder`."""
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    return done.stdout


def test_the_contracts_hold_and_name_each_import_that_they_forbid(tmp_path):
    shutil.copytree(ROOT / "compress", tmp_path / "compress", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert " 0 broken" in lint(tmp_path)
    for name, (line, _) in ARROWS.items():
        with (tmp_path / "compress" / name).open("a") as file:
            file.write(f"\n\n{line}\n")
    (tmp_path / "compress" / "homeless").mkdir()
    (tmp_path / "compress" / "homeless" / "__init__.py").touch()
    said = lint(tmp_path)
    assert [arrow for _, arrow in ARROWS.values() if f"compress.{arrow}" not in said] == []
    assert "compress.homeless" in said  # a module that stands in no layer


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        # a wrong configuration is to fail in no time
        (
            "compress, compress.cli.main, compress.config.compose, compress.sources",
            ("torch", "transformers", "onnx", "matplotlib", "scipy"),
        ),
        # and a run that reuses every stage needs neither
        ("compress.pipeline", ("torch", "transformers", "torch_pruning", "optimum", "pyarrow")),
        # who talks with a model waits for its first word
        (
            "compress.cli.chat, compress.cli.serve, compress.serve.server",
            ("torch", "transformers", "omegaconf", "hydra", "scipy", "rich", "compress.schema.report"),
        ),
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(modules, heavy):
    script = f"import sys, {modules}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_one_file_knows_the_switch_of_attention():
    naming = [path.name for path in (ROOT / "compress").rglob("*.py") if "GQA_DISABLE" in path.read_text()]
    assert naming == ["attention.py"]


def test_three_files_know_the_provider_of_cpus():
    """That which opens sessions, and two that run without the package."""
    package = ROOT / "compress"
    naming = [path for path in package.rglob("*.py") if "CPUExecutionProvider" in path.read_text()]
    names = {path.relative_to(package).as_posix() for path in naming}
    assert names == {"graph/session.py", "graph/probe.py", "runner/with_onnxruntime.py"}
