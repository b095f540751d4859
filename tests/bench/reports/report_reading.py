"""Reading the reports back: the times, the tables of a terminal, of Markdown and of HTML."""

import re
from html.parser import HTMLParser

UNITS = {"ns": 1.0, "µs": 1e3, "ms": 1e6, "s": 1e9}


def ns_of(words):
    """Nanoseconds of `3.05 µs`."""
    value, unit = words.split()
    return float(value.replace(",", "")) * UNITS[unit]


def number(words):
    """A figure of any report, marks and thousands taken away."""
    return float(words.replace(",", "").strip("*"))


def markdown_tables(text):
    """Tables by the bold title above them: a list of rows, the header first."""
    found = {}
    for title, body in re.findall(r"^\*\*(.+)\*\*\n\n((?:\|.*\n?)+)", text, re.MULTILINE):
        lines = [
            [one.strip() for one in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in body.strip().splitlines()
        ]
        assert {len(line) for line in lines} == {len(lines[0])}
        found[title] = [lines[0], *lines[2:]]
    return found


def columns(table):
    """Rows of a table as dictionaries, by the first cell without marks."""
    header, *rows = table
    return {row[0].strip("*"): dict(zip(header, row, strict=True)) for row in rows}


class Page(HTMLParser):
    """What a page holds: tables by caption, ids, attributes; raises where tags do not match."""

    VOID = ("meta", "br", "link", "img", "input", "hr")

    def __init__(self, text):
        super().__init__()
        self.stack, self.tags, self.ids, self.tables = [], [], [], {}
        self.texts, self._table, self._cell = [], None, None
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in self.VOID:
            self.stack.append(tag)
        if tag == "table":
            self._table = []
        elif tag == "tr":
            self._table.append([])
        elif tag in ("th", "td", "caption"):
            self._cell = [""]
        elif tag in ("small", "sup") and self._cell is not None:
            self._cell.append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag
        if tag in ("th", "td"):
            self._table[-1].append([part.strip() for part in self._cell])
            self._cell = None
        elif tag == "caption":
            self._title, self._cell = self._cell[0], None
        elif tag == "table":
            self.tables[self._title] = self._table

    def handle_data(self, data):
        if self._cell is not None:
            self._cell[-1] += data
        self.texts.append(data)
