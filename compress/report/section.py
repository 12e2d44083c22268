"""What a report is made of below its table: sections, which Markdown and HTML draw each in its own way."""

from collections.abc import Sequence
from dataclasses import dataclass

from compress.schema.report import Report, Variant, Verdict


@dataclass(frozen=True, kw_only=True)
class Picture:
    png: str  # base64
    lines: tuple[str, ...]  # below it


@dataclass(frozen=True)
class Section:
    anchor: str
    title: str
    header: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()
    lines: tuple[str, ...] = ()
    pictures: Sequence[Picture] = ()  # what HTML shows in place of the rows
    code: str = ""  # a command, verbatim


def fallback_line(verdict: Verdict) -> str | None:
    """What meets the budget where the variant in the artifact does not."""
    if verdict.instead is None:
        return None
    return f"{verdict.instead} meets the budget: budget.fallback=true ships it instead"


def reasons(verdict: Verdict) -> list[str]:
    return [line for line in (*verdict.reasons, fallback_line(verdict)) if line]


def best_variant(report: Report) -> Variant:
    """The variant the verdict names; the last one where a hand-made report names none that exists."""
    return next((v for v in report.variants if v.name == report.verdict.best), report.variants[-1])


def names(report: Report, field: str) -> list[str]:
    """Workloads or metrics of a dictionary of the variants, in the order in which they first appear."""
    return list(dict.fromkeys(name for variant in report.variants for name in getattr(variant, field)))
