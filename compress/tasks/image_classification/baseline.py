"""A baseline from nothing: the net that the configuration builds, trained on labels."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from compress.config.model import ImageClassifierModel
from compress.config.recover import Supervised
from compress.data.class_names import output_numbers
from compress.data.images import ImageSplits, load_images
from compress.errors import DataError
from compress.models.checkpoint import facts_of
from compress.tasks.image_classification.importing import import_image_classifier
from compress.tasks.image_classification.model import ImageClassifier, build
from compress.tasks.image_classification.training import ClassifierTraining, write_history


def fit_baseline(
    config: Supervised,
    builder: str,
    kwargs: Mapping[str, Any],
    facts: Mapping[str, str],
    splits: Path,
    out: Path,
    scratch: Path,
) -> None:
    """Train what `builder` makes of `kwargs` and write it as a checkpoint; `facts`: task, source, base_model,
    license. Mean and standard deviation of the inputs are those of the train split."""
    data = load_images(splits)
    torch.manual_seed(config.seed)
    net = build(builder, kwargs)
    labels = {str(number): name for number, name in enumerate(data.classes)}
    if isinstance(net, PreTrainedModel):
        net.config.id2label = {int(number): name for number, name in labels.items()}
        net.config.label2id = {name: int(number) for number, name in labels.items()}
        described = json.loads(net.config.to_json_string())
    else:
        described = {"builder": builder, "builder_kwargs": dict(kwargs), "id2label": labels}
    teacher = None
    if config.teacher:
        import_image_classifier(ImageClassifierModel(source=config.teacher), scratch)
        teacher = ImageClassifier.open(scratch)
        numbers, _ = output_numbers(data.classes, teacher.classes)
        if numbers != list(range(len(teacher.classes))):
            raise DataError(
                "the teacher has the classes of the data in another order, or more of them",
                found=", ".join(teacher.classes[:12]),
                allowed=", ".join(data.classes[:12]),
                next="name them as the teacher does: data.classes=[...], for files without names",
            )
    model = ImageClassifier(
        net,
        described,
        preprocessing_of(data),
        facts_of(facts),
        [],
    )
    history = ClassifierTraining(config, model, teacher, data).run(scratch)
    step = f"trained on {len(data.train.labels)} images for {len(history.steps)} epochs"
    if teacher is not None:
        step += f", {config.distill:.0%} of the loss from the answers of {config.teacher}"
    model.save(out, model.facts.after(step))
    write_history(history, out)


def preprocessing_of(data: ImageSplits) -> dict[str, Any]:
    """As transformers writes it to preprocessor_config.json."""
    pixels = data.train.images.astype(np.float64).reshape(-1, data.train.images.shape[-1]) / 255
    height, width = data.train.images.shape[1:3]
    return {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": False,
        "rescale_factor": 1 / 255,
        "image_mean": [round(float(x), 6) for x in pixels.mean(0)],
        "image_std": [round(float(x), 6) for x in pixels.std(0)],
        "size": {"height": int(height), "width": int(width)},
    }
