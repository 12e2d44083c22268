"""How to make every option, also those that have settings without a default."""

from compress.config.data import Documents, TextData, TextFile
from compress.config.model import CausalLMModel, EncoderModel, ImageClassifierModel
from compress.config.quantize import MixedBlocks
from compress.config.records import RecordData, TrainingSet
from compress.config.search import SearchConfig

CORPORA = {"mine": TextFile(source="path:x")}
NEEDS = {
    MixedBlocks: {"max_kl": 0.05},
    TextData: {"corpora": CORPORA, "test_corpus": "mine"},
    Documents: {
        "corpora": CORPORA,
        **{split: {"mine": 2} for split in ("test", "select", "calibration")},
    },
    RecordData: {"train_set": TrainingSet(source="path:x")},
    **{kind: {"source": "path:x"} for kind in (EncoderModel, ImageClassifierModel, CausalLMModel)},
    SearchConfig: {"objectives": ("size",), "study": "mine"},
}


def make(kind, **changes):
    return kind(**{**NEEDS.get(kind, {}), **changes})
