"""Markdown on a terminal of 80 columns, and in a pipe."""

import io

import pytest

from shapeloss.cli.terminal import show_markdown

HEADER = ["against", "difference", "95 % interval", "p", "p (Holm)", "n", "smallest detectable", "note"]
ROW = ["second", "+0.0123", "-0.0123 to +0.0234", "0.012", "<0.001", "12", "0.0123", "without knee_03"]


def page(header, *rows):
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]
    return "\n".join(["# Scores of <b> & *c*", "", *lines, "", "- no problem: `a_b_c`"])


@pytest.fixture
def terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def show(text, columns):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("TERM", "dumb")
        stream = Terminal()
        monkeypatch.setattr("sys.stdout", stream)
        show_markdown(text)
        return stream.getvalue()

    return show


def test_words_stay_whole_at_80_columns(terminal):
    shown = terminal(page(HEADER, ROW), 80)
    assert max(map(len, shown.splitlines())) <= 80
    assert "|" not in shown
    for word in " ".join([*HEADER, *ROW]).split():
        assert word in shown.split()
    assert "<b> &" in shown  # not taken for HTML and dropped


def test_a_table_too_wide_for_columns_becomes_a_block_for_each_row(terminal):
    many = [f"a_long_heading_{i}" for i in range(8)]
    shown = terminal(page(many, [f"first{i}" for i in range(8)], [*(f"second{i}" for i in range(7)), ""]), 80)
    assert max(map(len, shown.splitlines())) <= 80
    rows = [line.split() for line in shown.splitlines()]
    assert all([name, f"first{i}"] in rows for i, name in enumerate(many))
    assert ["a_long_heading_6", "second6"] in rows
    assert ["a_long_heading_7"] not in rows  # an empty cell has no line


def test_a_pipe_gets_the_markdown_itself(capsys):
    text = page(HEADER, ROW)
    show_markdown(text)
    assert capsys.readouterr().out == text + "\n"
