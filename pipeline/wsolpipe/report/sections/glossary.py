"""Meanings of the figures of the page."""

from __future__ import annotations

from wsolpipe.evaluate.glossary import read_glossary
from wsolpipe.report.page import Section

SECTION = Section("glossary", "Glossary", 60, lambda _: {"entries": list(read_glossary().values())})
