"""The one kind of table in all reports: rows of cells, for Markdown, the console and HTML."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from rich import box
from rich.table import Table
from rich.text import Text

from compress.report.format import MISSING, bracket, number, speed_word
from compress.schema.estimates import Estimate, Score

# From roomy to narrow: a console takes the first one that fits.
LAYOUTS = ("{value} {interval} {word}", "{value} {word}\n{interval}", "{value}\n{interval}\n{word}")
Rounded = Callable[[float, tuple[float, float]], tuple[str, str]]  # value, interval -> both as text
_GAP = 3  # characters between columns
_STYLES = {"faster": "green", "slower": "red", "not told apart": "yellow"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    value: str = MISSING
    interval: str = ""
    word: str = ""  # faster, slower, not told apart
    link: str = ""  # address of what the value names
    note: str = ""  # beside a link

    def text(self, layout: str = LAYOUTS[0]) -> str:
        filled = layout.format(value=self.value, interval=self.interval, word=self.word)
        return "\n".join(" ".join(line.split()) for line in filled.split("\n") if line.strip())

    def markdown(self) -> str:
        if self.link:
            return f"[{self.value}]({self.link}){f' ({self.note})' if self.note else ''}"
        return escape_markdown(self.text())


def plain(value: float | None, unit: float = 1.0) -> Cell:
    return Cell() if value is None else Cell(value=number(value / unit))


def estimated(estimate: Score | Estimate | None, word: str = "", rounded: Rounded = bracket) -> Cell:
    """A value with its interval, both with the digits of the larger, or as `rounded` gives them."""
    if estimate is None:
        return Cell()
    value, limits = rounded(estimate.value, estimate.ci95)
    return Cell(value=value, interval=limits, word=word)


def compared(speedup: Estimate | None, rounded: Rounded = bracket) -> Cell:
    """A speed-up, and the word that its interval allows."""
    return estimated(speedup, speed_word(speedup) if speedup else "", rounded)


# ---------------------------------------------------------------- Markdown


def escape_markdown(text: object) -> str:
    """Text as it is: no tag, no table cell, no link and no emphasis can come out of it."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "\\`*|":
        line = line.replace(character, "\\" + character)
    return line.replace("](", "]\\(")


def markdown_list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escape_markdown(line)}" for line in lines if line)


def markdown_grid(header: Sequence[str], rows: Iterable[Sequence[str | Cell]], numbers: bool = False) -> str:
    """A GitHub table; with `numbers`, all columns but the first are aligned to the right."""
    lines = [[escape_markdown(name) for name in header]]
    lines += [["---", *("--:" if numbers else "---" for _ in header[1:])]]
    lines += [
        [cell.markdown() if isinstance(cell, Cell) else escape_markdown(cell) for cell in row] for row in rows
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# ---------------------------------------------------------------- console


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row on a console."""

    cells: Sequence[Cell]
    style: str = ""
    label_style: str = ""  # of the first cell
    starts_section: bool = False


def console_grid(
    title: str,
    header: Sequence[str],
    lines: Sequence[Line],
    width: int,
    *,
    text_columns: int = 1,
    label_widths: Sequence[int | None] = (None,),
    layouts: Sequence[str] = LAYOUTS,
) -> Table:
    """A table of at most `width` characters: cells take two or three lines where they must, and fold beyond.

    The first `text_columns` are aligned to the left. The first column is at most as wide as the first of
    `label_widths` with which all fits; None: as wide as its text.
    """

    def needed(label_width: int | None, layout: str) -> int:
        columns = [
            _widest([name, *(line.cells[i].text(layout) for line in lines)]) for i, name in enumerate(header)
        ]
        columns[0] = columns[0] if label_width is None else label_width
        return sum(_GAP + column for column in columns)

    pairs = list(product(label_widths, layouts))
    label_width, layout = next((pair for pair in pairs if needed(*pair) <= width), pairs[-1])
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title=Text(title))
    for i, name in enumerate(header):  # folded where it must be: a cut number would be a lie
        table.add_column(
            Text(name),
            justify="left" if i < text_columns else "right",
            overflow="fold",
            max_width=None if i else label_width,
        )
    for line in lines:
        if line.starts_section:
            table.add_section()
        first, *others = line.cells
        texts = [Text(cell.text(layout), style=_STYLES.get(cell.word, "")) for cell in others]
        table.add_row(Text(first.text(layout), style=line.label_style), *texts, style=line.style)
    return table


def _widest(texts: Iterable[str]) -> int:
    """Characters of the longest line."""
    return max((len(line) for text in texts for line in text.split("\n")), default=0)
