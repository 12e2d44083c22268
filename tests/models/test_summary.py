"""What a checkpoint's summary says of it without opening the model."""

import pytest

from compress.models import read_summary


@pytest.mark.parametrize(
    ("net", "layers"), [("resnet", "convolutional"), ("depthwise", "convolutional"), ("vit", "transformer")]
)
def test_the_kind_of_net_of_an_image_classifier(net, layers, image_checkpoints):
    assert read_summary(image_checkpoints[net]).layers == layers


def test_encoders_and_language_models_are_transformers(checkpoints, language_checkpoints):
    for checkpoint in (checkpoints["bert"], language_checkpoints["llama"]):
        assert read_summary(checkpoint).layers == "transformer"
