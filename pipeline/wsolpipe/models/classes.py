"""Whether a classifier's classes are those of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ConfigError, WeightsError
from wsolpipe.models.classifier import classifier_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from wsolpipe.models.classifier import ClassifierRecord


def count_outputs(model: str, state: Mapping[str, torch.Tensor], *, source: str) -> int:
    """Classes that a file's last layer tells apart.

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
    hint = "import a classifier of these classes, or train one: classifier.weights=null classifier.mode=finetune"
    if classes is not None and classes != record.outputs:
        msg = (
            f"the classifier {record.model} has {record.outputs} outputs, and data set {dataset} has {classes} classes"
        )
        raise ConfigError(msg, hint=hint)
    for label, name in sorted(class_names.items()):
        known = record.class_names.get(str(label), name)
        if known.strip() != name.strip():
            msg = f"label {label} is {known!r} to the classifier {record.model} and {name!r} in data set {dataset}"
            raise ConfigError(msg, hint=hint)


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
