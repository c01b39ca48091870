"""What the figures of the page mean."""

from __future__ import annotations

from wsolpipe.evaluate.glossary import read_glossary
from wsolpipe.report.page import Section

TEMPLATE = """
<details><summary>{{ entries|length }} words that this page and <code>wsolpipe eval</code> use</summary>
<dl class="glossary">{% for entry in entries %}<div><dt>{{ entry.shown }}{% if entry.name != entry.shown %}
 <code>{{ entry.name }}</code>{% endif %}</dt><dd>{{ entry.meaning }}</dd></div>{% endfor %}</dl></details>
"""

SECTION = Section(
    name="glossary",
    title="Glossary",
    order=60,
    facts=lambda material: {"entries": list(read_glossary().values())},  # noqa: ARG005
    template=TEMPLATE,
    style=".glossary div{display:grid;grid-template-columns:minmax(160px,260px) 1fr;gap:4px 20px;padding:6px 0;"
    "border-bottom:1px solid var(--rule)}.glossary dt{font-weight:620;overflow-wrap:anywhere}"
    "@media (max-width:600px){.glossary div{grid-template-columns:1fr}}",
)
