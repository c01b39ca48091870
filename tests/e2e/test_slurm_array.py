"""``cluster=slurm-array`` on a real SLURM cluster: tasks cancelled, killed and timed out, and the same bytes."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from e2e.toy import make_toy, object_bytes, records

pytestmark = pytest.mark.slurm

SLOW = ("shard_rows=4", "shade.pause=0.4", "lease=20")


def array_words(folder, *words, workers=2):
    return (
        "cluster=slurm-array", f"workers={workers}", "profile.poll_seconds=0.5", f"profile.logs={folder / 'logs'}",
        *words,
    )  # fmt: skip


def commits(store, stage="shade"):
    return len(list(Path(store).glob(f"**/{stage}/*/commits/*.json")))


def begin(toy, slurm, *words, workers=2):
    """Start a run; return once it is in mid-run, after a second commit, and the tasks that are at work."""
    known = set(slurm.states())
    process = toy.start(*array_words(toy.folder, *SLOW, *words, workers=workers))
    slurm.wait(lambda: commits(toy.store) >= 2 or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    return process, [task for task in slurm.running() if task not in known]


def finish(toy, process, whole):
    """A disturbed run that ends well, with the bytes of an undisturbed one and no lease left; what it told."""
    out, told = process.communicate(timeout=150)
    assert process.returncode == 0, told
    assert object_bytes(toy.store) == object_bytes(whole.store)
    for stage in ("shade", "palette", "frame"):
        mine, theirs = records(toy.store, stage), records(whole.store, stage)
        assert {name: record.content for name, record in mine.items()} == {
            name: record.content for name, record in theirs.items()
        }
    assert not list(toy.store.glob("**/leases/*.json"))
    return told


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What one undisturbed process of this machine makes, in shards of four rows."""
    toy = make_toy(tmp_path_factory.mktemp("whole"))
    done = toy.run("shard_rows=4")
    assert done.code == 0, done.err
    return toy


def test_a_cancelled_task_leaves_its_work_to_the_others(slurm, toy, whole):
    process, tasks = begin(toy, slurm)
    assert len(tasks) == 2
    assert commits(toy.store, "frame") == 0
    slurm.call("scancel", tasks[0])
    told = finish(toy, process, whole)
    assert "was cancelled; others take over its work" in told
    log = (toy.folder / "logs").rglob(f"{tasks[0]}.log")
    assert "ended: SIGTERM" in next(log).read_text()


def test_a_killed_step_costs_its_shard_in_flight(slurm, toy, whole):
    """``kill -9`` of slurmd's step and all that it ran: SLURM itself notices nothing for minutes."""
    process, tasks = begin(toy, slurm)
    victims = slurm.kill_step(tasks[0])
    assert len(victims) >= 2  # the step and the worker in it
    assert commits(toy.store) < 10
    finish(toy, process, whole)
    assert victims[-1] not in {call["pid"] for call in toy.calls("frame")}
    slurm.wait(lambda: not slurm.running(), 30)  # the run took the dead task out of the queue


def test_a_job_that_timed_out_is_replaced_and_one_that_was_warned_goes_back_into_the_queue(slurm, tmp_path, whole):
    """Two runs side by side, a task each: one hangs until SLURM ends it, one is told that its time is nearly up."""
    hung, warned = make_toy(tmp_path / "hung"), make_toy(tmp_path / "warned")
    gate = hung.folder / "gate"
    first, (late,) = begin(hung, slurm, f"palette.gate={gate}", workers=1)
    slurm.wait(lambda: hung.calls("palette"))
    slurm.call("scontrol", "update", f"JobId={late}", "EndTime=now+1")
    second, (soon,) = begin(warned, slurm, workers=1)
    slurm.call("scancel", "--signal=USR1", "--batch", soon)
    finish(warned, second, whole)
    (log,) = (warned.folder / "logs").rglob("*.log")
    assert "its time is up and work is left" in log.read_text()
    assert "back in the queue, for the 2. time" in log.read_text()
    assert log.read_text().count(" of job ") == 2  # it began twice, in one log
    slurm.wait(lambda: slurm.states()[late] == "TIMEOUT", 240)
    assert (commits(hung.store), commits(hung.store, "frame")) == (10, 0)
    gate.touch()
    told = finish(hung, first, whole)
    assert f"task 0 of job {late.partition('_')[0]} ended: TIMEOUT; it is started again" in told


def test_an_interrupted_run_cancels_its_array_and_the_next_run_goes_on(slurm, toy, whole):
    process, tasks = begin(toy, slurm)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "interrupted" in told
    assert "resume with: wsolpipe run" in told
    assert {slurm.states()[task] for task in tasks} == {"CANCELLED"}
    assert not list(toy.store.glob("**/leases/*.json"))
    standing = commits(toy.store)
    made = len(toy.calls("shade"))
    done = toy.run("shard_rows=4")
    assert done.code == 0, done.err
    assert object_bytes(toy.store) == object_bytes(whole.store)
    assert len(toy.calls("shade")) - made <= 10 - standing


def test_an_array_needs_nobody_to_wait_and_knows_no_secret(slurm, toy, whole, monkeypatch):
    secret = "wJalr-not-a-real-key"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    done = toy.run(*array_words(toy.folder, "shard_rows=4", "wait=false"))
    assert done.code == 0, done.err
    assert "is submitted" in done.json["verdict"]
    assert "wsolpipe status store=" in done.json["verdict"]
    slurm.wait(lambda: not {"RUNNING", "PENDING", "COMPLETING"} & set(slurm.states().values()))
    assert object_bytes(toy.store) == object_bytes(whole.store)
    written = [path for folder in (toy.folder / "logs", toy.store) for path in folder.rglob("*") if path.is_file()]
    assert len(written) > 30
    assert not [path for path in written if secret.encode() in path.read_bytes()]
    again = toy.run(*array_words(toy.folder, "shard_rows=4"))
    assert again.code == 0
    assert "job" not in again.err  # nothing is left to do: nothing is submitted


def test_a_job_that_slurm_refuses_or_that_never_begins_is_explained(slurm, toy):
    refused = toy.run(*array_words(toy.folder, "profile.partition=gpuu"))
    assert refused.code == 1
    assert "sbatch refused" in refused.err
    assert "invalid partition specified: gpuu" in refused.err
    assert "resume with: wsolpipe run" in refused.err
    broken = toy.run(*array_words(toy.folder, "profile.python=/no/such/python", workers=1))
    assert broken.code == 1
    assert "ended: FAILED, before it began" in broken.err
    assert "/no/such/python: No such file or directory" in broken.err
    fatal = toy.run(*array_words(toy.folder, f"profile.setup=mv {toy.images} {toy.images}.away", workers=1))
    assert fatal.code == 3
    assert "images" in fatal.err
    slurm.wait(lambda: not slurm.running())  # cancelled; SLURM ends a task that runs within seconds


def test_tasks_that_die_without_fruit_are_not_replaced_for_ever(slurm, toy):
    """As where memory is too small: every worker dies at its first commit."""
    done = toy.run(*array_words(toy.folder, workers=1), WSOLPIPE_FAULT="before_put:1")
    assert done.code == 1
    assert done.err.count("ended: FAILED; it is started again") == 2
    assert "was started again 2 times already, 3 times without progress" in done.err
    assert "resume with: wsolpipe run" in done.err
    assert not slurm.running()


def test_print_shows_the_script_and_needs_no_slurm(toy, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    site = toy.folder / "site.yaml"
    site.write_text(
        "default: gpu\nprofiles: {gpu: {partition: gpu, account: lab, gpus: 1, cpus: 4, memory: 16G, time: '2:00:00',"
        " modules: [cuda/12.4], setup: [source /site/env.sh], max_jobs: 2, python: /site/bin/python}}\n"
    )
    done = toy.run("cluster=slurm-array", "workers=4", f"profiles={site}", "print=true", "profile.time=0:02:00")
    assert done.code == 0, done.err
    text = done.json["script"]
    for line in (
        "#!/bin/bash", "#SBATCH --array=0-3%2", "#SBATCH --partition=gpu", "#SBATCH --account=lab",
        "#SBATCH --gres=gpu:1", "#SBATCH --cpus-per-task=4", "#SBATCH --mem=16G", "#SBATCH --time=0:02:00",
        "#SBATCH --requeue", "#SBATCH --open-mode=append", "#SBATCH --signal=B:USR1@30",
        "module load cuda/12.4", "source /site/env.sh",
    ):  # fmt: skip
        assert line in text.splitlines()
    assert "exec /site/bin/python -m wsolpipe.launch.process " in text
    assert shutil.which("bash", path="/bin:/usr/bin")
    subprocess.run(["/bin/bash", "-n"], input=text, text=True, check=True)
    assert not toy.store.exists()
    nowhere = toy.run("cluster=slurm-array")
    assert nowhere.code == 1
    assert "sbatch is not installed on" in nowhere.err
    assert "print=true" in nowhere.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["profile=gpu"], "profile=gpu: no profiles file was found"),
        (["profile.tim=5"], "unknown field 'tim'; did you mean 'time'"),
        (["print=true", "cluster=local"], "print=true: cluster=local submits no script"),
        (["wait=false", "cluster=local"], "wait=false: workers of cluster=local end with the run"),
    ],
)
def test_words_that_fit_no_cluster_are_refused_before_anything_is_done(toy, words, told):
    kinds = [word for word in ["cluster=slurm-array"] if not any(given.startswith("cluster") for given in words)]
    toy.environment["XDG_CONFIG_HOME"] = str(toy.folder)
    done = toy.refuse("run", *kinds, *words)
    assert done.code == 3
    assert told in done.err
    assert not toy.store.exists()
