"""Markdown on a terminal: tables that fit its width; plain Markdown where the output is a pipe or a file."""

from __future__ import annotations

import sys
from itertools import zip_longest
from typing import ClassVar

from markdown_it import MarkdownIt
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, TableElement
from rich.table import Table
from rich.text import Text


class _FittingTable(TableElement):
    """A table whose words stay whole: where the columns do not fit side by side, each row becomes a block of lines."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        header = [cell.content for cell in self.header.row.cells] if self.header and self.header.row else []
        rows = [[cell.content for cell in row.cells] for row in (self.body.rows if self.body else [])]
        longest = [
            max(console.measure(text).minimum for text in column if text is not None)
            for column in zip_longest(header, *rows)
        ]
        if sum(longest) + 2 * len(longest) <= options.max_width:
            table = Table(box=box.SIMPLE, pad_edge=False, collapse_padding=True)
            for text, width in zip(header, longest, strict=True):
                table.add_column(text, min_width=width)
            for row in rows:
                table.add_row(*row)
            yield table
            return
        for row in rows:
            block = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
            for text, cell in zip(header, row, strict=True):
                if cell.plain:
                    block.add_row(text, cell)
            yield block
            yield Text()


class _Markdown(Markdown):
    elements: ClassVar = {**Markdown.elements, "table_open": _FittingTable}


def show_markdown(text: str) -> None:
    """Print Markdown: laid out on a terminal, unchanged where the standard output is a pipe or a file.

    Args:
        text: headings, paragraphs, lists and pipe tables; anything that looks like HTML is shown as text.
    """
    if not sys.stdout.isatty():
        print(text)
        return
    page = _Markdown("", hyperlinks=False)
    page.parsed = MarkdownIt("commonmark", {"html": False}).enable("table").parse(text)
    Console(file=sys.stdout, highlight=False).print(page)
