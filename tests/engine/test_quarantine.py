"""Rows that were given up: isolated, listed, counted against the budget, tried again or dropped."""

from __future__ import annotations

import numpy as np
import pytest

from e2e.toy import object_bytes, records
from engine.bench import line
from wsolpipe.contract.errors import BadImageError, is_out_of_memory
from wsolpipe.contract.schema import ArraySpec, Status
from wsolpipe.engine import quarantine
from wsolpipe.engine.graph import resolve
from wsolpipe.engine.isolation import Streak, process_guarded
from wsolpipe.engine.plan import make_plan
from wsolpipe.launch.run import budget
from wsolpipe.networks.devices import is_device_fault
from wsolpipe.stages.base import Context, Rows, Stage, StageParams


def spoil(bench, *names):
    for name in names:
        (bench.images / name).write_bytes(b"no image")


def arrays(bench, stage):
    view = bench.session().store["toy"]["train"][stage]
    return {name: view[name][:] for name in [*view.manifest.arrays, "status"]}


def test_an_undecodable_file_keeps_its_row_in_every_stage_with_the_reason(bench):
    spoil(bench, "class1/image004.png")
    outcome = bench.go()
    assert outcome.code == 0
    row = 24 + 1  # rows are sorted by path: 24 of class0, then image001 and image004 of class1
    for stage in ("shade", "frame"):
        found = bench.session().store["toy"]["train"][stage].quarantined()
        assert [(item["row"], item["path"]) for item in found] == [(row, "class1/image004.png")]
        assert "not an image" in found[0]["reason"] or "identify" in found[0]["reason"]
    status = arrays(bench, "frame")["status"]
    assert status[row] == Status.QUARANTINED
    assert (np.delete(status, row) == Status.OK).all()
    assert np.isnan(arrays(bench, "frame")["boxes"][row]).all()
    assert line(outcome, "frame").quarantined == 1


def test_a_row_that_makes_the_stage_raise_stands_alone(done):
    bench, _ = done
    before = arrays(bench, "shade")
    other = bench.folder / "other"
    outcome = bench.go("shade.bad=[21]", stage="shade", store=other)
    assert outcome.code == 0
    assert line(outcome, "shade").quarantined == 1
    view = outcome.session.store["toy"]["train"]["shade"]
    (item,) = view.quarantined()
    assert (item["row"], item["reason"]) == (21, "stage failed: ValueError: row 21 is too dark")
    rest = np.delete(np.arange(72), 21)
    for name, values in before.items():
        np.testing.assert_array_equal(view[name][:][rest], values[rest])
    assert view["maps"][21].max() == 0


def test_a_lone_row_in_its_block_can_be_bad(done):
    bench, _ = done
    outcome = bench.go("limit=5", "shade.bad=[4]", stage="shade", store=bench.folder / "other")
    assert outcome.code == 0
    assert line(outcome, "shade").quarantined == 1


class Picky:
    """Raises on the rows named, as a stage would."""

    params = None

    def __init__(self, bad, error=None):
        self.bad, self.error, self.calls = set(bad), error or ValueError("bad"), 0

    def batch_key(self):
        return "batch"

    def process(self, rows, inputs):
        self.calls += 1
        for position in range(len(rows)):
            if rows.usable(position) and position in self.bad:
                raise self.error
        return {"x": np.arange(len(rows), dtype=np.float32)}


def guarded(bad, n=64, **kwargs):
    rows = Rows(np.arange(n), {}, lambda position: None)
    stage = Picky(bad, **kwargs)
    made = process_guarded(stage, rows, {}, {"x": ArraySpec(dtype="float32", fill="nan")})
    assert sorted(rows.reasons) == sorted(bad)
    assert np.isnan(made["x"]).nonzero()[0].tolist() == sorted(bad)
    return stage, rows


@pytest.mark.parametrize("bad", [[0], [63], [0, 63], range(20, 52, 2), range(40, 64), range(24), range(56)])
def test_bad_rows_are_found_however_they_lie(bad):
    guarded(list(bad))


def test_a_stage_that_fails_on_every_row_is_broken_and_no_row_is_blamed():
    with pytest.raises(ValueError, match="bad"):
        guarded(range(64))


def test_one_bad_row_costs_few_extra_calls():
    stage, _ = guarded([13], n=256)
    assert stage.calls <= 2 + 2 * 8


def test_an_image_that_a_stage_loads_itself_and_that_is_bad_is_quarantined():
    _, rows = guarded([3, 9], error=BadImageError("truncated file"))
    assert rows.reasons[3] == "truncated file"


def test_every_image_of_a_block_may_be_bad():
    guarded(range(64), error=BadImageError("cannot be read"))


class Batched(StageParams):
    batch: int


class Hungry(Stage[Batched]):
    """Runs out of memory with more than `most` rows at once, as a network on a GPU would."""

    most = 16

    def arrays(self):
        return {"x": ArraySpec(dtype="float32", fill="nan")}

    def process(self, rows, inputs):
        if self.params.batch > self.most:
            msg = "CUDA out of memory. Tried to allocate 2.00 GiB"
            raise RuntimeError(msg)
        rows.quarantine(5, "bad")
        return {"x": np.arange(len(rows), dtype=np.float32)}


def test_a_batch_that_does_not_fit_into_memory_is_halved_until_it_does():
    rows, said = Rows(np.arange(64), {}, lambda position: None), []
    stage = Hungry(Batched(batch=64), Context(dataset="x", warn=said.append))
    made = process_guarded(stage, rows, {}, {"x": ArraySpec(dtype="float32", fill="nan")})
    assert np.isnan(made["x"]).nonzero()[0].tolist() == [5]
    assert said == [
        "Hungry: cpu ran out of memory with batch=64; going on with batch=32",
        "Hungry: cpu ran out of memory with batch=32; going on with batch=16",
    ]
    assert stage.params.batch == 16
    stage.most, said[:] = 1, []
    process_guarded(stage, Rows(np.arange(8), {}, lambda position: None), {}, stage.arrays())
    assert said[-1].endswith("with batch=2; going on with batch=1")


NO_MEMORY = [
    MemoryError(),
    RuntimeError("CUDA out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("nvrtc: error: NVRTC_ERROR_OUT_OF_MEMORY"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
]
FAULTS = [
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: device-side assert triggered",
    "CUDA error: uncorrectable ECC error encountered",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`",
    "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7) ran for 600000 milliseconds",
    "NCCL error in: ProcessGroupNCCL.cpp:1970, unhandled system error",
    "Found no NVIDIA driver on your system.",
    "CUDA driver error: unknown error",
]


@pytest.mark.parametrize("error", [*NO_MEMORY, *map(RuntimeError, FAULTS)], ids=str)
def test_memory_and_device_are_no_fault_of_a_row(error):
    with pytest.raises(type(error)):
        guarded([3], error=error)
    assert is_out_of_memory(error) == (error in NO_MEMORY)
    assert is_device_fault(error) == (error not in NO_MEMORY)


@pytest.mark.parametrize(
    "text", ["row 3 is too dark", "expected cuda:0 and found cpu", "shape '[2, 3]' is invalid for input of size 5"]
)
def test_an_error_of_the_code_is_no_fault_of_the_device(text):
    assert not is_device_fault(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError(text))


def test_a_fault_is_found_behind_the_error_that_a_stage_made_of_it():
    wrapped = ValueError("the map of row 3")
    wrapped.__cause__ = RuntimeError(FAULTS[0])
    assert is_device_fault(wrapped)


def test_rows_that_fail_one_after_the_other_in_small_blocks_show_a_broken_stage():
    """Blocks of four rows are too small to tell; eight rows in a row over their borders are not."""
    streak, spec = Streak(), {"x": ArraySpec(dtype="float32", fill="nan")}

    def work(bad):
        process_guarded(Picky(bad), Rows(np.arange(4), {}, lambda position: None), {}, spec, streak)

    work(range(4))
    work([0, 1])
    work(range(4))
    with pytest.raises(ValueError, match="bad"):
        work(range(4))


@pytest.mark.parametrize(
    ("share", "rows", "expected"),
    [(0.05, 100, 20), (0.05, 1000, 50), (0, 100, 0), (1, 31, 31), (1.0, 5, 20), (2, 1000, 2), (500, 1000, 500)],
)
def test_the_budget_is_a_share_of_at_least_twenty_rows_or_a_number(share, rows, expected):
    assert budget(share, rows) == expected


def test_exit_codes_follow_the_budget(bench):
    spoil(bench, *(f"class0/image{row:03d}.png" for row in range(0, 66, 3)))  # 22 of 72 rows
    assert bench.go(stage="shade").code == 2
    assert line(bench.go(stage="shade"), "shade").shards_done == 5
    assert bench.go("max_failed=0.5", stage="shade").code == 0
    assert bench.go("max_failed=1", stage="shade").code == 0
    assert bench.go("max_failed=22", stage="shade").code == 0
    assert bench.go("max_failed=21", stage="shade").code == 2
    assert bench.go("max_failed=0", stage="shade").code == 2


def test_when_every_row_is_bad_the_run_failed_whatever_the_budget(bench):
    spoil(bench, *(path.relative_to(bench.images).as_posix() for path in bench.images.rglob("*.png")))
    outcome = bench.go("max_failed=1", stage="shade")
    assert outcome.code == 1
    assert "every row of" in outcome.verdict


def test_listing_names_each_row_once_where_it_was_given_up(bench):
    spoil(bench, "class0/image000.png")
    bench.go("shade.bad=[10]")
    found = quarantine.quarantined_rows(bench.session("shade.bad=[10]"))
    assert [(item["row"], item["stage"], item["split"]) for item in found] == [
        (0, "index", "train"),
        (10, "shade", "train"),
    ]
    assert all({"row", "image_id", "path", "stage", "reason"} <= set(item) for item in found)


def test_retry_makes_only_the_shards_of_rows_that_were_given_up(bench):
    bench.go("shade.bad=[10]")
    assert quarantine.retry(bench.session()) == 1
    outcome = bench.go()
    assert outcome.code == 0
    assert line(outcome, "frame").quarantined == 0
    assert sorted(bench.made()) == [("frame", 0), ("shade", 0)]
    assert records(bench.store, "shade")[f"{bench.keys()['shade']}/0"].generation == 2
    untouched = bench.go("shade.bad=[]", store=bench.folder / "other")
    assert untouched.code == 0
    mended, fresh = object_bytes(bench.store), object_bytes(bench.folder / "other")
    assert mended == fresh


def test_retry_of_an_image_that_was_mended_scans_it_again(bench):
    good = (bench.images / "class0/image000.png").read_bytes()
    spoil(bench, "class0/image000.png")
    bench.go()
    (bench.images / "class0/image000.png").write_bytes(good)
    assert quarantine.retry(bench.session()) == 1
    assert line(bench.go(), "frame").quarantined == 0
    assert quarantine.quarantined_rows(bench.session()) == []


def test_retry_of_named_rows_leaves_the_others(bench):
    bench.go("shade.bad=[10, 40]")
    ids = {item["image_id"] for item in quarantine.quarantined_rows(bench.session()) if item["row"] == 40}
    assert quarantine.retry(bench.session(), ids) == 1
    assert line(bench.go(), "shade").quarantined == 1


def test_dropped_rows_no_longer_count(bench):
    spoil(bench, *(f"class0/image{row:03d}.png" for row in range(0, 66, 3)))
    assert bench.go(stage="shade").code == 2
    assert quarantine.drop(bench.session(stage="shade")) == 22
    assert bench.go(stage="shade").code == 0
    assert all(item["dropped"] for item in quarantine.quarantined_rows(bench.session(stage="shade")))


def test_rows_dropped_and_mended_since_do_not_pay_for_others(bench):
    names = [f"class0/image{row:03d}.png" for row in range(0, 66, 3)]
    good = {name: (bench.images / name).read_bytes() for name in names}
    spoil(bench, *names)
    bench.go(stage="shade")
    quarantine.drop(bench.session(stage="shade"))
    for name, data in good.items():
        (bench.images / name).write_bytes(data)
    spoil(bench, *(f"class1/image{row:03d}.png" for row in range(1, 67, 3)))
    quarantine.retry(bench.session(stage="shade"))
    assert bench.go("force=true", stage="index,shade").code == 2


def test_a_retried_row_makes_a_new_generation_and_plan_names_what_reads_it(bench):
    bench.go("shade.bad=[10]")
    assert quarantine.retry(bench.session()) == 1
    reasons = {item.stage: item.reason for item in plan_of(bench)}
    assert reasons["shade"] == "1 retry asked"
    assert bench.go(stage="shade").code == 0
    (frame,) = [item for item in plan_of(bench) if item.stage == "frame"]
    assert "1 upstream shard changed" in frame.reason or "1 retry asked" in frame.reason
    for path in bench.store.glob("toy/train/frame/*/retries/*"):
        path.unlink()  # nobody asked for these rows: what they read changed all the same
    (frame,) = [item for item in plan_of(bench) if item.stage == "frame"]
    assert (frame.reason, frame.shards - frame.shards_done) == ("1 upstream shard changed", 1)


def plan_of(bench):
    session = bench.session()
    return make_plan(session, resolve(session))
