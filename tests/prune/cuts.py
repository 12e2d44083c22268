"""Single cuts of a model, as tests make them."""

import torch

from compress.config.prune import Keep, Scope, TransformerPrune
from compress.prune.depth import drop_layers
from compress.prune.width import cuts_of, measure, narrow
from compress.tasks.image_classification.calibration import LabelledImages
from compress.tasks.sentence_embedding.calibration import Texts


def config(importance="activation", scope="local", round_to=8, **changes):
    keep = {kind: changes.pop(kind) for kind in ("ffn", "heads", "layers") if kind in changes}
    return TransformerPrune(
        importance=importance, scope=Scope[scope], round_to=round_to, keep=Keep(**keep), **changes
    )


def texts_of(encoder, texts, batch_size=32):
    return Texts(encoder, texts, batch_size)


def images_of(model, split, batch_size=32):
    return LabelledImages(model, split.images, split.labels, batch_size)


def cut_heads(data, chosen):
    narrow(data.model, [cuts_of(data.model.stack, chosen)[0]], chosen, data)


def cut_channels(data, chosen):
    narrow(data.model, [cuts_of(data.model.stack, chosen)[1]], chosen, data)


def drop(data, share):
    stack = data.model.stack
    return drop_layers(stack, max(1, round(len(stack.blocks) * share)), (0, 0), data.distances())


def channel_scores(data, chosen):
    """Of each layer, with nothing left behind."""
    cut = cuts_of(data.model.stack, chosen)[1]
    scores, moments = measure(data.model, [cut], chosen, data)
    layers = data.model.stack.layers()
    found = [
        scores.of(cut, layer, layer.ffn_width, seen) for layer, seen in zip(layers, moments, strict=True)
    ]
    data.model.module.zero_grad()
    return found


def heads_left(dense, small):
    """Of each layer of `small` the numbers that its heads have in `dense`, after a look at all their rows and
    columns; those of the heads that went are zeroed in `dense`."""
    found, size = [], dense.head_size
    for before, after in zip(dense.layers(), small.layers(), strict=True):
        of_before, of_after = (layer.query.weight.split(size) for layer in (before, after))
        left = [next(n for n, b in enumerate(of_before) if torch.equal(b, a)) for a in of_after]
        rows = torch.cat([torch.arange(head * size, (head + 1) * size) for head in left])
        for name in ("query", "key", "value"):
            whole, part = getattr(before, name), getattr(after, name)
            assert torch.equal(whole.weight[rows], part.weight)
            assert torch.equal(whole.bias[rows], part.bias)
        assert torch.equal(before.attention_output.weight[:, rows], after.attention_output.weight)
        assert torch.equal(before.attention_output.bias, after.attention_output.bias)
        gone = [column for column in range(before.query.out_features) if column not in rows]
        with torch.no_grad():
            before.attention_output.weight[:, gone] = 0
        found.append(left)
    return found


def moments_of(data, linears):
    """Of layers of the first transformer layer, or of any in one pass."""
    return next(iter(data.moments([linears])))
