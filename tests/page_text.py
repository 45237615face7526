"""What a page says, read back from its HTML."""

from __future__ import annotations

from html.parser import HTMLParser


class Read(HTMLParser):
    """Tables by caption, as rows of cells; numbers are what ``<data>`` holds, not what is written."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str | float]]] = {}
        self.text: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.caption: str | None = None
        self.within: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.add(tag)
        self.addresses += [found[key] or "" for key in ("href", "src", "xlink:href", "data") if key in found]
        if tag == "table":  # of a chart: it has no caption
            self.tables.pop("", None)
            self.tables[""] = []
        elif tag == "caption":
            self.caption = ""
        elif tag == "tr" and self.tables:
            next(reversed(self.tables.values())).append([])
        elif tag in ("td", "th") and self.tables and next(reversed(self.tables.values())):
            next(reversed(self.tables.values()))[-1].append("")
        elif tag == "data" and {"td", "th"} & set(self.within) and next(reversed(self.tables.values()), None):
            next(reversed(self.tables.values()))[-1][-1] = float(found["value"])
        if tag not in ("meta", "link", "br", "img"):
            self.within.append(tag)

    def handle_endtag(self, tag):
        if tag == "caption" and self.caption is not None:
            self.tables.pop("", None)
            self.tables[self.caption], self.caption = [], None
        while self.within and self.within.pop() != tag:
            pass

    def handle_data(self, data):
        self.text.append(data)
        if self.caption is not None:
            self.caption += data
        elif self.within[-1:] in (["td"], ["th"]) and self.tables:
            rows = next(reversed(self.tables.values()))
            if rows and rows[-1] and isinstance(rows[-1][-1], str):
                rows[-1][-1] += data

    def row(self, table: str, name: str) -> dict[str, str | float]:
        """A row of a table by its first cell, by heading."""
        heads, *rows = self.tables[table]
        return dict(zip(map(str, heads), next(row for row in rows if row[0] == name), strict=True))
