"""One table of keys for both halves: name, type, default, unit and meaning of every ``key=value``.

`kinds` says what a value may be, `key` holds the table and reads words by it, `values` reads the text of one value,
`safe_yaml` reads YAML files of users. `help_text`, `completion` and `reference` show the same table to people. The
modules that describe keys import no numpy, YAML or pydantic, so that ``--help`` answers at once.
"""
