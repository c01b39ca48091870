"""The scoring classifier f_r, trained here on the labels of the train split, or imported."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError, WeightsError
from wsolpipe.images.video import prepare_ahead
from wsolpipe.networks.saved_state import read_newest, write_state
from wsolpipe.networks.sources import choose_preprocessing, named
from wsolpipe.stages.base import Advice, Array, ArtifactStage, Made, Rows
from wsolpipe.stages.classifier_params import ClassifierParams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch

    from wsolpipe.models.training import Recipe
    from wsolpipe.networks.classifier import ClassifierRecord, ImageClassifier

#: Images that go through the network at once where it is not trained.
BATCH = 32
FEATURES = "wsolpipe features of a probe/1"
IMPORT = "classifier.weights=FILE classifier.mode=import"


class Classifier(ArtifactStage[ClassifierParams]):
    """Makes ``model.safetensors`` and ``classifier.json`` (`wsolpipe.networks.classifier`) and measures accuracy.

    References
    ----------
    The classifier f_r of DiPS: Murtaza et al., Image and Vision Computing 2023; thesis, chapter 2.
    """

    @classmethod
    def weights_needed(cls, params: ClassifierParams) -> dict[str, str]:
        """The classifier to import, or what training starts from."""
        if params.way == "import":
            return {"weights": named(params.weights, params.model)}
        return {"start": named(params.start, params.model)}

    @classmethod
    def advice(cls, params: ClassifierParams) -> tuple[Advice, ...]:  # noqa: ARG003
        """A look at its accuracy."""
        return (("wsolpipe eval stage=classifier", "accuracy of the classifier: one that errs points elsewhere"),)

    @classmethod
    def splits_needed(cls, params: ClassifierParams) -> tuple[str, ...]:
        """The train split where something is trained."""
        return () if params.way == "import" else ("train",)

    @classmethod
    def splits_measured(cls, params: ClassifierParams) -> tuple[str, ...]:
        """Splits whose accuracy is reported."""
        return params.measure

    @classmethod
    def without_split(cls, params: ClassifierParams, split: str) -> str | None:  # noqa: ARG003
        """Import a classifier where there is nothing to train on."""
        return f"import one: {IMPORT}"

    def produce(self, splits: Mapping[str, Rows]) -> Made:
        """Train or import, measure, and write the files.

        Raises
        ------
        ConfigError
            If there is nothing to train on, or the classifier does not fit the data set's classes.
        WeightsError
            If the weights are of another architecture.
        """
        from wsolpipe.networks.classifier import save_classifier

        way = self.params.way
        if way == "import":
            classifier = self._imported()
        else:
            train, outputs = self._training_rows(splits)
            classifier = self._started(outputs)
            training = {"probe": self._probe, "finetune": self._fine_tune}[way]
            training(classifier, splits["train"], train)
        accuracy = {
            split: self._accuracy(classifier, splits[split]) for split in self.params.measure if split in splits
        }
        return Made(files=save_classifier(classifier), summary={"mode": way, "accuracy": accuracy})

    # -- import -----------------------------------------------------------------------------------------------------

    def _imported(self) -> ImageClassifier:
        from wsolpipe.networks.classifier import ImageClassifier, count_outputs, refuse_misfit, stored_record
        from wsolpipe.networks.weights import load_into, load_state

        weights = self.context.weights["weights"]
        if weights.path is None:
            outputs, state = self.context.classes or 1000, None
            stored = None
        else:
            state = load_state(weights)
            stored = stored_record(weights.path)
            outputs = stored.outputs if stored else count_outputs(self.params.model, state, source=weights.source)
        if stored and (stored.model, dict(stored.model_args)) != (self.params.model, self.params.model_args):
            msg = (
                f"{weights.source} is a classifier of {stored.model} {dict(stored.model_args)}, "
                f"and the parameters say {self.params.model} {self.params.model_args}"
            )
            raise WeightsError(msg, hint=f"classifier.model={stored.model}")
        record = self._record(outputs, weights_name="weights")
        if stored and stored.size != record.size:
            self.context.warn(
                f"{weights.source} was made at {stored.size} pixels a side and is used at {record.size}; "
                f"if that is not meant, set classifier.size={stored.size}"
            )
        if stored:
            record = replace(record, features=stored.features, class_names=stored.class_names)
        refuse_misfit(record, self.context.dataset, self.context.classes, self.context.class_names)
        with self._seeded(weights.seed or 0):
            classifier = ImageClassifier(record)
        if state is not None:
            part = classifier.net if classifier.head is None else classifier
            load_into(part, state, what=f"{record.model} with {outputs} outputs")
        return classifier.to(self.context.device).eval().requires_grad_(requires_grad=False)

    def _record(self, outputs: int, *, weights_name: str) -> ClassifierRecord:
        from wsolpipe.networks.classifier import ClassifierRecord

        params, weights = self.params, self.context.weights[weights_name]
        seen = choose_preprocessing(
            weights, model=params.model, mean=params.mean, std=params.std, stage="classifier", warn=self.context.warn
        )
        made = {"params": params.in_key(), "weights": {"sha256": weights.sha256, "source": weights.source}}
        return ClassifierRecord(
            model=params.model,
            outputs=outputs,
            size=params.size,
            mean=seen.mean,
            std=seen.std,
            model_args=params.model_args,
            made=made,
        )

    @contextlib.contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        """New tensors drawn inside depend on `seed` alone; the global generator is put back."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield

    # -- training ---------------------------------------------------------------------------------------------------

    def _training_rows(self, splits: Mapping[str, Rows]) -> tuple[list[int], int]:
        """Positions of usable, labelled rows of the train split, and the number of classes."""
        rows = splits.get("train")
        if rows is None:
            msg = f"data set {self.context.dataset} has no split train, so no classifier can be trained on it"
            raise ConfigError(msg, hint=self.without_split(self.params, "train"))
        labels = rows.labels()
        chosen = [position for position, label in enumerate(labels) if label is not None and rows.usable(position)]
        if not chosen:
            msg = f"no usable row of split train of data set {self.context.dataset} has a label"
            raise ConfigError(msg, hint=f"give labels, or import a classifier: {IMPORT}")
        largest = max(int(labels[position] or 0) for position in chosen)
        outputs = self.context.classes or largest + 1
        if largest >= outputs:
            msg = f"a label of split train is {largest}, and data set {self.context.dataset} has {outputs} classes"
            raise ConfigError(msg, hint="correct classes: in the data set's YAML")
        return chosen, outputs

    def _started(self, outputs: int) -> ImageClassifier:
        from wsolpipe.networks.architectures import classifier_keys
        from wsolpipe.networks.classifier import ImageClassifier
        from wsolpipe.networks.weights import load_into, load_state

        weights = self.context.weights["start"]
        names = {str(label): name for label, name in sorted(self.context.class_names.items())}
        record = replace(self._record(outputs, weights_name="start"), features=self.params.features, class_names=names)
        with self._seeded(self.params.seed if weights.seed is None else weights.seed):
            classifier = ImageClassifier(record)
        if weights.path is not None:
            # The last layer is new; whatever the file holds in its place belongs to other classes.
            last = classifier_keys(record.model)
            state = {name: value for name, value in load_state(weights).items() if not name.startswith(last)}
            own = {name: value for name, value in classifier.net.state_dict().items() if name.startswith(last)}
            load_into(classifier.net, {**state, **own}, what=record.model)
        return classifier.to(self.context.device).eval().requires_grad_(requires_grad=False)

    def _recipe(self) -> Recipe:
        from wsolpipe.models.training import Recipe

        names = Recipe.__dataclass_fields__
        return Recipe(**{name: getattr(self.params, name) for name in names})

    def _squash(self) -> int:
        return self.params.resize or round(self.params.size * 256 / 224)

    def _view(self, squashed: Array, draw: int, row: int) -> Array:
        """View number `draw` (an epoch) of the image in `row`: the same whoever asks, in whatever order."""
        from wsolpipe.models.training import augment

        rng = np.random.default_rng([self.params.seed, 1, draw, row])
        return augment(squashed, self.params.size, rng, flip=self.params.flip, min_crop=self.params.min_crop)

    def _probe(self, classifier: ImageClassifier, rows: Rows, chosen: Sequence[int]) -> None:
        import torch

        from wsolpipe.images.geometry import resize
        from wsolpipe.models.training import fit_head

        params = self.params

        def prepare(image: Array, position: int) -> Array:
            views = [resize(image, (params.size, params.size))]
            if params.views > 1:
                squashed = resize(image, (self._squash(), self._squash()))
                views += [self._view(squashed, draw, int(rows.numbers[position])) for draw in range(1, params.views)]
            return np.stack(views)

        kept, features = self._kept_features()
        seen_before = -(-(chosen.index(kept[-1]) + 1) // BATCH) * BATCH if kept else 0
        with torch.inference_mode():
            for positions, images in self._images(rows, chosen[seen_before:], prepare):
                kept += positions
                views = torch.from_numpy(images).to(self.context.device)
                flat = classifier.pooled(classifier.normalise(views.flatten(0, 1)))
                features.append(flat.float().view(*views.shape[:2], -1))
                self._keep_features(kept, features)
                self.context.check()
        seen = torch.cat(features).transpose(0, 1).flatten(0, 1).clone()  # view by view
        labels = rows.labels()
        wanted = torch.tensor([labels[position] for position in kept], device=seen.device).repeat(params.views)
        weight, bias = fit_head(seen, wanted, classifier.record.outputs, self._recipe())
        last = classifier.last_layer()
        last.weight.copy_(weight)
        last.bias.copy_(bias)

    def _kept_features(self) -> tuple[list[int], list[torch.Tensor]]:
        """Positions and features that an earlier attempt saw, in whole batches."""

        path = self.context.unfinished.path
        found = read_newest(path, kind=FEATURES) if path is not None else None
        return ([], []) if found is None else (found[0]["kept"], [found[1]["features"].to(self.context.device)])

    def _keep_features(self, kept: Sequence[int], features: list[torch.Tensor]) -> None:
        import torch

        path = self.context.unfinished.path
        if path is not None and self.context.unfinished.due():
            with contextlib.suppress(OSError):
                write_state(path, {"features": torch.cat(features)}, {"kept": list(kept)}, kind=FEATURES)

    def _fine_tune(self, classifier: ImageClassifier, rows: Rows, chosen: Sequence[int]) -> None:
        from wsolpipe.images.geometry import resize
        from wsolpipe.models.training import fine_tune

        params, squash, labels = self.params, self._squash(), rows.labels()
        batch = min(params.batch, len(chosen))
        steps = len(chosen) // batch
        room = (params.cache_mib << 20) // (squash * squash * 3)
        cached: dict[int, Array | None] = dict.fromkeys(chosen[:room])

        def load(position: int) -> Array:
            squashed = cached.get(position)
            if squashed is None:
                squashed = resize(rows.load(position), (squash, squash))
                if position in cached:
                    cached[position] = squashed
            return squashed

        def view(epoch: int, squashed: Array, position: int) -> Array:
            return self._view(squashed, epoch, int(rows.numbers[position]))

        def batches(epoch: int, first: int) -> Iterator[tuple[Array, Array]]:
            order = np.random.default_rng([params.seed, 0, epoch]).permutation(chosen)[: steps * batch].tolist()
            for positions, images in prepare_ahead(
                order[first * batch :],
                load,
                partial(view, epoch),
                batch=batch,
                threads=self.context.threads,
                failed=rows.quarantine,
            ):
                yield images, np.array([labels[position] for position in positions], np.int64)

        fine_tune(
            classifier, batches, steps=steps, recipe=self._recipe(), done=self.context.progress,
            keep=self.context.unfinished,
        )  # fmt: skip

    # -- images -----------------------------------------------------------------------------------------------------

    def _images(
        self, rows: Rows, chosen: Sequence[int], prepare: Callable[[Array, int], Array], batch: int = BATCH
    ) -> Iterator[tuple[list[int], Array]]:
        """Prepared images of `chosen` rows in that order; a row that cannot be decoded is quarantined and left out."""

        return prepare_ahead(
            chosen, rows.load, prepare, batch=batch, threads=self.context.threads, failed=rows.quarantine
        )

    def _accuracy(self, classifier: ImageClassifier, rows: Rows) -> dict[str, Any]:
        """Shares of rows whose label is the first, and among the first five, of the classifier's classes."""
        import torch

        from wsolpipe.images.geometry import resize
        from wsolpipe.networks.classifier import refuse_label

        size, labels = classifier.record.size, rows.labels()
        usable = [position for position, label in enumerate(labels) if label is not None and rows.usable(position)]
        for position in usable:
            refuse_label(int(labels[position] or 0), classifier.record, self.context.dataset)
        limit = self.params.measure_rows
        spread = np.linspace(0, len(usable) - 1, limit).astype(int) if limit and len(usable) > limit else ...
        chosen = np.array(usable, np.int64)[spread].tolist()
        first = five = seen = 0
        for positions, images in self._images(rows, chosen, lambda image, _: resize(image, (size, size))):
            logits = classifier.logits(torch.from_numpy(images).to(self.context.device)).cpu()
            true = torch.tensor([labels[position] for position in positions])[:, None]
            hits = logits.topk(min(5, logits.shape[1])).indices == true
            first, five, seen = first + int(hits[:, 0].sum()), five + int(hits.any(1).sum()), seen + len(positions)
            self.context.progress(seen, len(chosen))
        share = {"top1": first / seen, "top5": five / seen} if seen else {}
        return {**share, "rows": seen, "rows_with_label": len(usable)}
