"""report.md: the same story as report.html, for pull requests and terminals."""

from compress.report.grid import escape_markdown, markdown_grid, markdown_list
from compress.report.section import Section, reasons
from compress.report.sections import sections
from compress.report.table import markdown_table
from compress.schema.report import Report


def report_markdown(report: Report) -> str:
    verdict = report.verdict
    word = "Ships" if verdict.ships else "Does not ship"
    parts = [
        f"# {escape_markdown(report.experiment)}",
        f"**{word}: {escape_markdown(verdict.best)}**",
        markdown_list(reasons(verdict)),
        "## Results",
        f"Measured on the ONNX files themselves. Primary metric: {escape_markdown(report.primary_metric)}. "
        "Brackets are 95 % intervals; a drop is positive where the model got worse.",
        markdown_table(report),
        *(_drawn(section) for section in sections(report)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _drawn(section: Section) -> str:
    parts = [
        f"## {escape_markdown(section.title)}",
        markdown_list(section.lines),
        markdown_grid(section.header, section.rows) if section.rows else "",
        # indented, not fenced: no text inside can close the block
        "\n".join("    " + line for line in section.code.splitlines()),
    ]
    return "\n\n".join(part for part in parts if part)
