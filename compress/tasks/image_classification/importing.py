"""A published classifier of images to a checkpoint of ours."""

from pathlib import Path
from typing import Any

import torch

from compress.config.model import ImageClassifierModel
from compress.errors import ModelError
from compress.models import timm_checkpoint
from compress.models.checkpoint import fetch_published, read_config
from compress.models.kind import check_unquantized
from compress.models.loading import with_all_heads
from compress.models.preprocessing import published_preprocessing, read_preprocessing
from compress.stages.result import gate, write_result
from compress.tasks.image_classification import stock
from compress.tasks.image_classification.model import OUR_NETS, ImageClassifier
from compress.tasks.image_classification.reading import ImageReading
from compress.tasks.reading import check_reading


def import_image_classifier(config: ImageClassifierModel, out: Path) -> None:
    """Turn a published folder into a checkpoint of ours; pickled weights are refused.

    What a function of the user's builds, or pruning of ours left, is read by us alone: there is no other
    reader to hold it against, and the gate says so.
    """
    folder, facts = fetch_published(config, check_unquantized)
    described, preprocessing = _published(folder, config)
    model = ImageClassifier.described(described, preprocessing, folder, facts)
    _check_runs(model)
    model.save(out, facts)
    ours = model.history or not (folder / "config.json").is_file() or "builder" in read_config(folder)
    if ours:
        alone = "read by us alone: no library opens a net of one's own, or a pruned one"
        write_result(out, gates=[gate(alone)])
    else:
        with with_all_heads(folder) as whole:
            check_reading(ImageReading(out), stock, whole, out)


def _check_runs(model: ImageClassifier) -> None:
    try:
        with torch.no_grad():
            model.run({"pixel_values": model.example()})
    except (RuntimeError, ValueError, IndexError) as error:
        raise ModelError(
            "the net does not take the images that its preprocessing makes",
            found=" ".join(str(error).split())[:300],
            allowed=f"{' x '.join(map(str, model.shape))}, as preprocessor_config.json says",
            next="fetch the model again, config.json and preprocessor_config.json of one revision",
        ) from None


def _published(folder: Path, config: ImageClassifierModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """What config.json and preprocessor_config.json are to say, where the net is one we may build."""
    if config.builder is not None and not (folder / "config.json").is_file():  # nothing but weights
        described = {"builder": config.builder, "builder_kwargs": dict(config.builder_kwargs)}
        return described, read_preprocessing(folder)
    described = read_config(folder)
    check_unquantized(described)
    if timm_checkpoint.is_timm(described):
        return timm_checkpoint.converted(described)
    builder = described.get("builder")
    if builder is None:
        return described, published_preprocessing(folder)
    if builder not in (config.builder, timm_checkpoint.BUILDER) and not str(builder).startswith(OUR_NETS):
        raise ModelError(
            "the checkpoint wants to run a function that the configuration does not name",
            found=builder,
            allowed=f"{OUR_NETS}..., or what model.builder names",
            next=f"if you trust it: model.builder={builder}",
        )
    return described, read_preprocessing(folder)
