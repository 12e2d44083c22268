"""Draws report.json; measures nothing."""

import os
from pathlib import Path

from compress.report.files import beside, publish
from compress.report.html import report_html
from compress.report.markdown import report_markdown
from compress.schema.report import Report

__all__ = ["redraw", "write_reports"]


def write_reports(report: Report, folder: Path) -> None:
    """Write report.json, report.md and report.html, each whole or not at all.

    The drawings are made from report.json read back, so that `redraw` gives the same bytes; and after it
    is in place, so that a drawing that fails loses no result. Raises ArtifactError when what was written
    cannot be read back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = beside(folder / "report.json")
    try:
        report.save(temporary)
        Report.load(temporary)
        os.replace(temporary, folder / "report.json")
    finally:
        temporary.unlink(missing_ok=True)
    redraw(folder)


def redraw(folder: Path) -> None:
    """Make report.md and report.html again from report.json. Raises ArtifactError when it is no report."""
    report = Report.load(folder / "report.json")
    publish(folder / "report.md", report_markdown(report))
    publish(folder / "report.html", report_html(report))
