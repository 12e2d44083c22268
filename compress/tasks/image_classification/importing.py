"""A published classifier of images to a checkpoint of ours."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from compress.config.model import ImageClassifierModel
from compress.errors import ModelError
from compress.models import timm_checkpoint
from compress.models.checkpoint import fetch_published, read_config
from compress.models.kind import check_known, check_unquantized
from compress.models.loading import with_all_heads
from compress.models.preprocessing import published_preprocessing, read_preprocessing
from compress.stages.result import gate, write_result
from compress.tasks.image_classification import stock
from compress.tasks.image_classification.model import OUR_NETS, ImageClassifier
from compress.tasks.image_classification.reading import ImageReading
from compress.tasks.reading import check_reading

_BESIDE = 8  # images of the batch in which an image must get the answer that it gets alone


def import_image_classifier(config: ImageClassifierModel, out: Path) -> None:
    """Turn a published folder into a checkpoint of ours; pickled weights are refused.

    What a function of the user's builds, or pruning of ours left, is read by us alone: there is no other
    reader to hold it against, and the gate says so.
    """
    folder, facts = fetch_published(config, _check)
    described, preprocessing = _published(folder, config)
    model = ImageClassifier.described(described, preprocessing, folder, facts)
    _check_runs(model)
    if "builder" in described:
        _check_alone(model)
    model.save(out, facts)
    ours = model.history or not (folder / "config.json").is_file() or "builder" in read_config(folder)
    if ours:
        alone = "read by us alone: no library opens a net of one's own, or a pruned one"
        write_result(out, gates=[gate(alone)])
    else:
        with with_all_heads(folder) as whole:
            check_reading(ImageReading(out), stock, whole, out)


def _check(described: dict[str, Any]) -> None:
    """Raise ModelError for a config.json of a model that is no classifier of transformers', of timm's or of
    one's own."""
    if "builder" not in described and not timm_checkpoint.is_timm(described):
        check_known(described, MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, "a classifier of images")
    check_unquantized(described)


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
    except (TypeError, AttributeError) as error:  # of the code of a net of one's own
        raise ModelError(
            "the net cannot be called with pixels alone",
            found=" ".join(f"{type(error).__name__}: {error}".split())[:300],
            allowed="one input: pixels (batch, channels, height, width)",
            next="name a function in model.builder whose net takes pixels alone",
        ) from error


def _check_alone(model: ImageClassifier) -> None:
    """Raise ModelError for a net whose answer is another one each time, or goes by what else is in the batch:
    it normalises over the batch, say."""
    random = np.random.default_rng(0)
    shape = (_BESIDE, *model.shape)
    images = random.integers(0, 256, shape) * random.uniform(0, 1, (_BESIDE, 1, 1, 1))
    pixels = model.inputs(images.astype(np.uint8))["pixel_values"]
    with torch.no_grad():
        first, again, beside = (
            model.run({"pixel_values": pixels[:count].clone()})[:1] for count in (1, 1, _BESIDE)
        )
    allowed = 1e-4 * first.nan_to_num(0, 0, 0).abs().max().item()
    for what, other in (("is another one each time", again), ("depends on the others of its batch", beside)):
        if not torch.allclose(first, other, rtol=1e-4, atol=allowed, equal_nan=True):
            raise ModelError(
                f"the net's answer for an example {what}",
                found=f"logits that differ by up to {(first - other).abs().max():.1g}",
                allowed="for the same pixels the same logits, alone and beside others",
                next="normalise by stored statistics (track_running_stats=True), and drop nothing, in eval()",
            )


def _published(folder: Path, config: ImageClassifierModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """What config.json and preprocessor_config.json are to say, where the net is one we may build."""
    if config.builder is not None and not (folder / "config.json").is_file():  # nothing but weights
        described = {"builder": config.builder, "builder_kwargs": dict(config.builder_kwargs)}
        return described, read_preprocessing(folder)
    described = read_config(folder)
    _check(described)
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
