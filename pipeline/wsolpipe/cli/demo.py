"""``wsolpipe demo``."""

from __future__ import annotations

import shutil
from pathlib import Path

from wsolpipe.cli.command import make_command
from wsolpipe.keys import kinds

FOLDER = "wsolpipe-demo"
NAMES = ("demo.yaml", "demo_video.yaml", "demo")


@make_command("demo", as_run=False, positional=kinds.file("folder"))
def command(words: tuple[str, ...], as_json: bool) -> int:  # noqa: ARG001
    """Copy the demo's images, weights and descriptions, 14 MB, and show the commands that try it.

    \b
    wsolpipe demo
    wsolpipe demo FOLDER
    """
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.images.dataset import data_folder

    if len(words) > 1 or any("=" in word for word in words):
        msg = "demo takes one folder"
        raise ConfigError(msg, hint=f"wsolpipe demo FOLDER, or none for {FOLDER}")
    target = Path(words[0] if words else FOLDER).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        msg = f"{target} exists already"
        raise ConfigError(msg, hint="wsolpipe demo OTHER copies it elsewhere")
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in NAMES:
            source = data_folder() / name
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target / name)
    except OSError as error:
        msg = f"{target} cannot be written: {error.strerror}"
        raise ConfigError(msg, hint="name another folder: wsolpipe demo FOLDER") from error
    print(f"copied the demo to {target}: eight classes of rendered scenes with boxes and masks. Next:\n")
    print(f"  cd {target}")
    print("  wsolpipe run stage=proposals dataset=demo.yaml store=labels     # half a minute on two cores")
    print("  wsolpipe eval stage=proposals dataset=demo.yaml store=labels")
    print("  wsolpipe report dataset=demo.yaml store=labels")
    print("  wsoltrain fit recipe=dips_workshop dataset=demo.yaml store=labels")
    return 0
