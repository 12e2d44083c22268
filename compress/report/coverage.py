"""What the reports say of how much is quantized, and why the rest is not."""

from collections import defaultdict
from collections.abc import Iterable

from compress.report.format import percent
from compress.report.section import Section
from compress.schema.report import Report, SkippedNode

_NODES_SHOWN = 3


def coverage_sections(report: Report) -> list[Section]:
    return [_coverage(report), _skipped(report)]


def _coverage(report: Report) -> Section:
    rows = [
        (v.name, percent(v.quantization.coverage_macs), percent(v.quantization.coverage_bytes))
        for v in report.variants
        if v.quantization is not None
    ]
    header = ("variant", "MACs in integers", "weight bytes in integers")
    return Section(anchor="coverage", title="Quantization coverage", header=header, rows=rows)


def _skipped(report: Report) -> Section:
    rows = [
        (v.name, reason, str(len(nodes)), _shortened(nodes))
        for v in report.variants
        if v.quantization is not None
        for reason, nodes in by_reason(v.quantization.skipped)
    ]
    header = ("variant", "reason", "nodes", "which")
    return Section(anchor="skipped", title="Nodes left in float", header=header, rows=rows)


def by_reason(skipped: Iterable[SkippedNode]) -> list[tuple[str, list[str]]]:
    """Names of nodes by reason, the most frequent reason first."""
    groups: dict[str, list[str]] = defaultdict(list)
    for node in skipped:
        groups[node.reason].append(node.node)
    return sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))


def _shortened(nodes: list[str]) -> str:
    more = len(nodes) - _NODES_SHOWN
    return ", ".join(nodes[:_NODES_SHOWN]) + (f" and {more} more" if more > 0 else "")
