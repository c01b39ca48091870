"""Whether a classifier's classes are those of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ConfigError, WeightsError
from wsolpipe.networks.architectures import classifier_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from wsolpipe.networks.classifier import ClassifierRecord

#: Differing names that a message lists.
LISTED = 5


def count_outputs(model: str, state: Mapping[str, torch.Tensor], *, source: str) -> int:
    """Number of classes of a file's last layer.

    Raises
    ------
    WeightsError
        If the file has no last layer of this model.
    """
    keys = classifier_keys(model)
    for key in keys:
        if f"{key}weight" in state:
            return len(state[f"{key}weight"])
    msg = f"{source} holds no classifier: it has no tensor {keys[0] if keys else 'head.'}weight of {model}"
    raise WeightsError(
        msg, hint="train one from it: classifier.weights=null classifier.mode=probe classifier.start=FILE"
    )


def refuse_misfit(record: ClassifierRecord, dataset: str, classes: int | None, class_names: Mapping[int, str]) -> None:
    """Refuse a classifier whose classes are not the data set's.

    It fits when it has as many outputs as the data set has classes (where that is known) and, where both know the
    name of a label, the names agree. Labels are checked one by one with `refuse_label`.

    Raises
    ------
    ConfigError
        Says what differs.
    """
    hint = "import a classifier of these classes, or train one from the file: classifier.start=FILE alone"
    if classes is not None and classes != record.outputs:
        msg = (
            f"the classifier {record.model} has {record.outputs} outputs, and data set {dataset} has {classes} classes"
        )
        raise ConfigError(msg + _unshared(record, class_names), hint=hint)
    named = ((label, record.class_names.get(str(label), name), name) for label, name in sorted(class_names.items()))
    differing = [item for item in named if item[1].strip() != item[2].strip()]
    if differing:
        label, known, name = differing[0]
        msg = f"label {label} is {known!r} to the classifier {record.model} and {name!r} in data set {dataset}"
        more = [f"{number} is {theirs!r} and {ours!r}" for number, theirs, ours in differing[1:LISTED]]
        left = len(differing) - 1 - len(more)
        raise ConfigError("; ".join([msg, *more, *([f"and {left} more"] if left else [])]), hint=hint)


def _unshared(record: ClassifierRecord, class_names: Mapping[int, str]) -> str:
    """Names that only one of the two lists has, where both name any."""
    theirs, ours = set(record.class_names.values()), set(class_names.values())
    if not theirs or not ours:
        return ""
    parts = [
        f"only {who} names {', '.join(sorted(names)[:LISTED])}{' …' if len(names) > LISTED else ''}"
        for who, names in (("the classifier", theirs - ours), ("the data set", ours - theirs))
        if names
    ]
    return "".join(f"; {part}" for part in parts)


def refuse_label(label: int, record: ClassifierRecord, dataset: str) -> None:
    """Refuse a label for which the classifier has no output.

    Raises
    ------
    ConfigError
        Names both numbers.
    """
    if not 0 <= label < record.outputs:
        msg = (
            f"data set {dataset} has a label {label}, and the classifier {record.model} only {record.outputs} outputs "
            f"(0 … {record.outputs - 1})"
        )
        raise ConfigError(msg, hint="give classes: in the data set's YAML, and a classifier of that many outputs")
