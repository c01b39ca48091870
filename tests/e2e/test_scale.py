"""A store of 1.28 million rows: `plan` and `status` read records only, and its files are few."""

from __future__ import annotations

from bench.plan_scale import LIMIT_FILES, LIMIT_MIB, build, measure, words


def test_plan_and_status_of_a_million_rows_need_little_memory_and_no_table(tmp_path):
    files = build(tmp_path)
    assert files <= LIMIT_FILES
    assert not list(tmp_path.rglob("*.parquet"))
    for command, arguments in (("plan", words(tmp_path)), ("status", [f"store={tmp_path / 'store'}"])):
        measured = measure(command, arguments, tmp_path)
        print(f"{command}: {measured.seconds:.2f} s, {measured.mib:.0f} MiB, {files:,} files")
        assert measured.mib <= LIMIT_MIB
