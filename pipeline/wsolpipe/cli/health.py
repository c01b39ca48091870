"""``wsolpipe status``, ``verify``, ``repair``, ``quarantine`` and ``doctor``: is all well?"""

from __future__ import annotations

import time

from wsolpipe import open_store
from wsolpipe.cli.command import configure, make_command
from wsolpipe.contract.errors import ConfigError, NotFoundError, StoreError, unknown
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json, print_skipped, print_table, shown
from wsolpipe.keys.key import Key, keys_of_class


class _StatusKeys:
    """Keys of ``wsolpipe status``.

    Attributes
    ----------
    watch
        show it again and again
    every
        time between two looks of watch=true
    """

    watch = Key(kinds.flag(), False)
    every = Key(kinds.number(0.1, 86400), 5, unit="seconds")


STATUS_KEYS = keys_of_class(_StatusKeys)


@make_command("status", keys=STATUS_KEYS, listed=("store", "dataset", "stage", "wide"))
def status_command(words: tuple[str, ...], as_json: bool) -> int:
    """Show the progress of every stage of a store; needs no cluster and no data set."""
    from wsolpipe.engine.status import last_command, survey
    from wsolpipe.images.offers import stored_name
    from wsolpipe.launch.terminal import show_status

    config, own = configure(words, STATUS_KEYS)
    while True:
        store = open_store(config.store)
        dataset = stored_name(config.dataset) or None
        if dataset:
            store[dataset]  # raises with the names that there are
        lines, failed, skipped = survey(store, dataset=dataset, stages=config.stage)
        resume = last_command(store, dataset)
        if as_json:
            print_json({"stages": lines, "failed": failed, "skipped": skipped, "store": config.store, "resume": resume})
        else:
            show_status(lines, failed, wide=config.wide)
            if resume:
                print(shown(f"last command: {resume}"))
            print_skipped(skipped)
        if not own["watch"]:
            return 0
        time.sleep(own["every"])


class _VerifyKeys:
    """Keys of ``wsolpipe verify``.

    Attributes
    ----------
    deep
        read every object; false: only records and the sizes of objects
    """

    deep = Key(kinds.flag(), True)


VERIFY_KEYS = keys_of_class(_VerifyKeys)


@make_command("verify", keys=VERIFY_KEYS, listed=("store", "dataset", "stage"))
def verify_command(words: tuple[str, ...], as_json: bool) -> int:
    """Read every object of a store again: digests, shapes, NaN, box bounds. Exit code 4 if anything is wrong."""
    from wsolpipe.engine.leases import list_folders
    from wsolpipe.images.offers import stored_name
    from wsolpipe.share.verify import verify

    config, own = configure(words, VERIFY_KEYS)
    deep = own["deep"]
    store, dataset = open_store(config.store), stored_name(config.dataset) or None
    for name in config.stage:
        if name not in (held := {folder.stage for folder in list_folders(store.backend)[0]}):
            raise NotFoundError(unknown(f"stage of {config.store}", name, held))
    problems = list(verify(store, dataset=dataset, stages=config.stage, deep=deep))
    if as_json:
        print_json({"store": config.store, "problems": problems})
    elif problems:
        print_table(["kind", "where", "shard", "what"], [[p.kind, p.where, p.shard, p.text] for p in problems])
        print(f"{len(problems)} problems; wsolpipe repair store={config.store} removes or sets aside what is damaged")
    else:
        print(f"{config.store}: everything agrees with its records" + ("" if deep else " in size; nothing was read"))
    print_skipped(list_folders(store.backend, datasets=(dataset,) if dataset else ())[1])
    return StoreError.exit_code if problems else 0


@make_command("repair", listed=("store", "dataset", "stage"))
def repair_command(words: tuple[str, ...], as_json: bool) -> int:
    """Remove or set aside what is damaged, orphaned or left by killed processes; the next run makes it again."""
    from wsolpipe.engine.status import last_command
    from wsolpipe.images.offers import stored_name
    from wsolpipe.share.repair import repair

    config, _ = configure(words)
    store, dataset = open_store(config.store), stored_name(config.dataset) or None
    done = repair(store, dataset=dataset, stages=config.stage)
    if as_json:
        print_json({"store": config.store, "mended": [{**vars(problem), "done": text} for problem, text in done]})
        return 0
    if not done:
        print(f"{config.store}: nothing to repair")
        return 0
    print_table(["kind", "where", "shard", "done"], [[p.kind, p.where, p.shard, text] for p, text in done])
    command_line = last_command(store, dataset)
    if command_line:
        print(shown(f"now run: {command_line}"))
    return 0


ACTIONS = kinds.choice("list", "retry", "drop")


class _QuarantineKeys:
    """Keys of ``wsolpipe quarantine``.

    Attributes
    ----------
    ids
        only these rows
    """

    ids = Key(kinds.list_of(kinds.text("image_id")), (), otherwise="all quarantined rows")


QUARANTINE_KEYS = keys_of_class(_QuarantineKeys)


@make_command("quarantine", keys=QUARANTINE_KEYS, listed=("stage", "dataset", "store", "split"), positional=ACTIONS)
def quarantine_command(words: tuple[str, ...], as_json: bool) -> int:
    """List quarantined rows, try them again, or accept that they have no result.

    \b
    wsolpipe quarantine list  stage=proposals dataset=D
    wsolpipe quarantine retry stage=proposals dataset=D [ids=a.jpg,b.jpg]   then: wsolpipe run …
    wsolpipe quarantine drop  stage=proposals dataset=D [ids=a.jpg,b.jpg]   no longer counted against max_failed
    """
    from wsolpipe.engine.quarantine import drop, quarantined_rows, retry
    from wsolpipe.engine.session import Session

    given = [word for word in words if "=" not in word]
    action = given[0] if given else "list"
    if action not in ACTIONS.choices or len(given) > 1:
        raise ConfigError(unknown("quarantine action", " ".join(given), ACTIONS.choices))
    config, own = configure((word for word in words if "=" in word), QUARANTINE_KEYS)
    ids = set(own["ids"]) or None
    session = Session.open(config, need_root=False)
    open_store(config.store)  # raises where there is none
    if action == "list":
        rows = quarantined_rows(session)
        if as_json:
            print_json(rows)
        else:
            print_table(
                ["row", "image_id", "stage", "split", "reason", "dropped"],
                [
                    [
                        item["row"],
                        item["image_id"],
                        item["stage"],
                        item["split"],
                        item["reason"],
                        "yes" if item["dropped"] else "",
                    ]
                    for item in rows
                ],
            )
        return 0
    changed = retry(session, ids) if action == "retry" else drop(session, ids)
    if as_json:
        print_json({"action": action, "rows": changed})
    elif action == "retry":
        print(f"{changed} rows will be tried again by the next run")
    else:
        print(f"{changed} rows no longer count against max_failed")
    return 0


@make_command("doctor", listed=("store",))
def doctor_command(words: tuple[str, ...], as_json: bool) -> int:
    """Check what usually goes wrong on a new machine; exit code 1 if something will."""
    from wsolpipe.share.checks import examine

    config, _ = configure(words)
    findings = examine(config.store)
    if as_json:
        print_json(findings)
    else:
        rows = [[item.check, "ok" if item.ok else "BAD", item.detail, item.advice] for item in findings]
        print_table(["check", "", "detail", "what to do"], rows)
    return 0 if all(item.ok for item in findings) else 1
