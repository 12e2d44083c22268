"""README.md of an artifact: a model card that Hugging Face reads, filled from the report.

Plain YAML instead of huggingface_hub's ModelCardData, which drops and rewrites keys from release to release.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from compress.report.format import interval, megabytes, percent, relevant_flags, run_lengths
from compress.report.grid import escape_markdown, markdown_grid
from compress.report.html import templates
from compress.report.section import best_variant, reasons
from compress.report.sections import settings
from compress.report.table import markdown_table
from compress.report.tasks import tasks
from compress.report.tuning import tuning_line
from compress.schema.report import Report

_FACTS = (
    "base_model", "license", "source", "inputs", "outputs", "max_length", "pipeline_tag", "example_code",
    "javascript", "gguf",
)  # fmt: skip
_GGUF_WEIGHTS = {
    "f16": "matrices in float16",
    "q8_0": "matrices in 8 bits, rounded to nearest in blocks of 32",
    "q4_0": "matrices in 4 bits, rounded to nearest in blocks of 32, embedding and head in 8",
}


def model_card(report: Report, facts: Mapping[str, Any]) -> str:
    """The card of the variant the verdict names.

    `facts`, all optional: base_model, license, source, pipeline_tag, example_code, javascript: text; inputs,
    outputs: name -> description; max_length: tokens; gguf: of the GGUF file beside the graph its `name`,
    `format`, `size_bytes` and `kl_of_rounding_nats`.
    """
    best, dense = best_variant(report), report.variants[0]
    drop = best.drop_from_dense.get(report.primary_metric)
    environment = templates(autoescape=False)  # Markdown, not HTML
    environment.filters |= {"md": escape_markdown, "percent": percent, "megabytes": megabytes}
    return environment.get_template("card.md.j2").render(
        report=report,
        facts={name: facts.get(name) for name in _FACTS},
        front_matter=front_matter(report, facts),
        best=best,
        dense=dense,
        reasons=reasons(report.verdict),
        drop=interval(drop.value, drop.ci95) if drop else "",
        widths={kind: run_lengths(widths) for kind, widths in best.widths.items()},
        groups={name: _settings(report, name) for name in ("prune", "recover", "quantize")},
        prune=report.config.get("prune") or {},
        recover=report.config.get("recover") or {},
        flags=relevant_flags([str(flag) for flag in report.environment.get("isa_flags") or []]),
        table=markdown_table(report),
        answers=[line for task in tasks() for line in task.summary(report)],
        noise=report.noise,
        tuning=tuning_line(report),
        gguf_weights=_GGUF_WEIGHTS.get((facts.get("gguf") or {}).get("format", ""), ""),
        interface=_interface(facts),
        code=_fenced(str(facts.get("example_code") or ""), "python"),
        javascript=_fenced(str(facts.get("javascript") or ""), "js"),
    )


def front_matter(report: Report, facts: Mapping[str, Any]) -> str:
    """YAML between the dashes; a fact that is unknown is left out, never guessed."""
    quantized = best_variant(report).quantization is not None
    relation = "quantized" if quantized else "finetune"  # the Hub knows adapter and merge too
    data = {
        "license": facts.get("license"),
        "base_model": facts.get("base_model"),
        "base_model_relation": relation if facts.get("base_model") else None,
        "library_name": "onnxruntime",
        "pipeline_tag": facts.get("pipeline_tag"),
        "tags": ["onnx", "onnxruntime", *["int8"] * quantized, "compressed"],
    }
    known = {name: value for name, value in data.items() if value is not None}
    return str(yaml.safe_dump(known, sort_keys=False, allow_unicode=True)).strip()


def _settings(report: Report, group: str) -> str:
    config = report.config.get(group)
    return ", ".join(f"`{setting.replace('`', '')}`" for setting in settings(config)) if config else ""


def _interface(facts: Mapping[str, Any]) -> str:
    rows = [
        (kind, str(name), str(description))
        for kind, entries in (("input", facts.get("inputs")), ("output", facts.get("outputs")))
        for name, description in (
            entries.items() if isinstance(entries, Mapping) else ((entry, "") for entry in entries or ())
        )
    ]
    return markdown_grid(("", "name", "what"), rows) if rows else ""


def _fenced(code: str, language: str) -> str:
    """A fence longer than any inside the code, so that nothing in it closes the block."""
    fence = "```"
    while fence in code:
        fence += "`"
    return f"{fence}{language}\n{code.strip()}\n{fence}" if code.strip() else ""
