"""Effect of refinement on the maps of a data set: each way and weight beside the maps themselves, in paired tests.

    python tools/experiments/refine_table.py packs=FOLDER weights=FOLDER out=work [pack=ilsvrc_val_acuity]
    python tools/experiments/refine_table.py dataset=work/ilsvrc_val_acuity.yaml store=STORE maps=cams,cls_maps \
        [ways=segments,guided,crf] [STAGE.parameter=value …]

The first form cuts a pack into two halves by the sha256 of its file names, without a training split, and writes the
YAML of both: a pretrained MobileNetV2 and a supervised ViT-Ti make the maps. The second chooses the weight on the split
`val`, by the pseudo-boxes of the data set's settings, and shows the split `test`: MaxBoxAcc, MaxBoxAccV2 and mean IoU
before and after, each at its own best threshold, and the difference with its 95 % interval.
"""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from real_data import KINDS, description

WAYS = ("segments", "guided", "crf")
FIGURES = ("MaxBoxAcc", "iou")


def write_halves(pack: Path, weights: Path, out: Path, count: int | None = None) -> Path:
    """Write the metadata of both halves, `count` rows of each, below `out`, and their YAML; returns that."""
    folder = out / pack.name
    lines = {kind: (pack / f"{kind}.txt").read_text(encoding="utf-8").splitlines() for kind in KINDS}
    stored = pack / "localization_stored227.txt"  # boxes in pixels of the files, where these were squashed
    if stored.is_file():
        lines["localization"] = stored.read_text(encoding="utf-8").splitlines()
    names = sorted(filter(None, lines["image_ids"]), key=lambda name: sha256(name.encode()).hexdigest())
    for number, split in enumerate(("val", "test")):
        (folder / split).mkdir(parents=True, exist_ok=True)
        own = set(names[number::2][:count])
        for kind, of_all in lines.items():
            kept = "".join(f"{line}\n" for line in of_all if line.split(",", 1)[0] in own)
            (folder / split / f"{kind}.txt").write_text(kept, encoding="utf-8")
        (folder / split / "classes.txt").write_text(
            (pack / "classes.txt").read_text(encoding="utf-8"), encoding="utf-8"
        )
    about = description(pack, weights, folder)
    about["split"] = {name: name for name in ("val", "test")}
    about["files"] = {"image_sizes": None}
    trained = about["stages"]["classifier"].pop("start")
    about["stages"]["classifier"] |= {"mode": "import", "weights": trained, "measure": ["val"]}
    about["stages"]["regions"] = {"method": "onnx", "weights": str((weights / "yolox_nano_coco.onnx").resolve())}
    about["stages"]["val_boxes"] = {"annotator": "rpn"}
    path = out / f"{pack.name}.yaml"
    path.write_text(yaml.safe_dump(about, sort_keys=False), encoding="utf-8")
    return path


def wsolpipe(*words: str) -> Any:
    """Return what a command prints as JSON."""
    done = subprocess.run(["wsolpipe", *words, "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def table(dataset: str, store: str, maps: str, ways: list[str], extra: list[str]) -> list[str]:
    """Lines of one stage of maps: as it is, then every way and weight."""
    common = [f"dataset={dataset}", f"store={store}", *extra]
    wsolpipe("run", f"stage={maps}", "split=test", *common)
    lines = [f"| {maps} | | {figures(wsolpipe('eval', f'stage={maps}', 'split=test', *common))} | |"]
    for way in ways:
        for weight in ("auto", "0.5", "1.0"):
            words = [*common, f"refine.maps={maps}", f"refine.by={way}", f"refine.w={weight}"]
            wsolpipe("run", "stage=refine", "split=test", *words)
            found = wsolpipe("eval", "stage=refine", "split=test", *words, f"beside={maps}")
            name = weight
            if weight == "auto":
                name = f"auto: {wsolpipe('eval', 'stage=refine_weight', *words)['w']:g}"
            tests = "; ".join(
                "{} {difference:+.3g} ({low:+.3g} … {high:+.3g})".format(figure, **found["beside"][figure])
                for figure in FIGURES
            )
            lines.append(f"| {maps}, {way} | {name} | {figures(found)} | {tests} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


def figures(found: dict[str, Any]) -> str:
    """MaxBoxAcc, MaxBoxAccV2 and mean IoU."""
    return f"{found['MaxBoxAcc']:.1f} / {found['MaxBoxAccV2']['mean']:.1f} / {100 * found['iou']:.1f}"


def main(words: list[str]) -> int:
    """Write halves, or print the table."""
    values = {"pack": "ilsvrc_val_acuity", "maps": "cams,cls_maps", "ways": ",".join(WAYS)}
    values |= dict(word.split("=", 1) for word in words if "." not in word.partition("=")[0])
    if "packs" in values:
        pack, out = Path(values["packs"]) / values["pack"], Path(values["out"])
        print(write_halves(pack, Path(values["weights"]), out))
        return 0
    extra = [word for word in words if "." in word.partition("=")[0]]
    print("| maps | w | MaxBoxAcc / V2 / IoU | after − before |")
    print("|---|---|---|---|")
    for maps in values["maps"].split(","):
        print("\n".join(table(values["dataset"], values["store"], maps, values["ways"].split(","), extra)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
