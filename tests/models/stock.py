"""What stock transformers, of the version that runs this, makes of checkpoints. Knows nothing of us.

Run as a script: stock.py JOBS.json, a list of {"folder", "auto", "inputs", "out"}: checkpoint, class of
transformers that opens it, npz of its inputs, and the npz that states or logits go to, with what the folder's
tokenizer and greedy generation give.
"""

import json
import sys

import numpy as np
import torch
import transformers

TEXTS = [
    "The quiet river runs near the old city.",
    "  Zwölf  BOXkämpfer, jagen\tViktor: 'quer' 123 don't!",
    "a",
]
CHAT = [{"role": "user", "content": "the old city"}]


@torch.no_grad()
def outputs(folder, auto, inputs):
    model = getattr(transformers, auto).from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    with np.load(inputs) as stored:
        tensors = {name: torch.from_numpy(stored[name]) for name in stored.files}
    found = model.eval()(**tensors)
    given = {"found": (found.last_hidden_state if auto == "AutoModel" else found.logits).numpy()}
    if auto == "AutoModelForCausalLM":
        model.generation_config.max_length = None
        given["generated"] = model.generate(**tensors, do_sample=False, max_new_tokens=24).numpy()
        kept = ("bos_token_id", "eos_token_id", "pad_token_id")
        given["ends"] = np.array([str(getattr(model.generation_config, name)) for name in kept])
    if auto != "AutoModelForImageClassification":
        return given | tokens(folder)
    return given | {"pixels": pixels(folder, model.config.num_channels)}


def pixels(folder, channels):
    """Of a picture that has to be resized; of the processors that need no torchvision."""
    slow = {"use_fast": False} if transformers.__version__.startswith("4") else {"backend": "pil"}
    processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True, **slow)
    picture = np.random.default_rng(0).integers(0, 256, (20, 12, channels)).astype(np.uint8)
    return processor(images=picture, input_data_format="channels_last", return_tensors="np")["pixel_values"]


def tokens(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=24, return_tensors="np")
    given = {f"batch.{name}": array for name, array in batch.items()}
    rows = [tokenizer(text)["input_ids"] for text in TEXTS]
    given |= {f"row.{number}": np.array(row) for number, row in enumerate(rows)}
    given["plain"] = np.array(tokenizer.encode(TEXTS[1], add_special_tokens=False))
    given["decoded"] = np.array([tokenizer.decode(row) for row in rows])
    given["skipped"] = np.array([tokenizer.decode(row, skip_special_tokens=True) for row in rows])
    kinds = ("bos", "eos", "pad", "unk", "sep", "cls", "mask")
    given["marks"] = np.array([str(getattr(tokenizer, f"{kind}_token")) for kind in kinds])
    given["special"] = np.array(sorted(tokenizer.all_special_tokens))
    given["longest"] = np.array(min(tokenizer.model_max_length, 10**9))
    if tokenizer.chat_template:
        given["chat"] = np.array(tokenizer.apply_chat_template(CHAT, tokenize=False))
    return given


def main(path):
    with open(path, encoding="utf-8") as file:
        jobs = json.load(file)
    for job in jobs:
        try:
            given = outputs(job["folder"], job["auto"], job["inputs"])
        except Exception as error:  # for the test to say which
            given = {"error": np.array(f"{type(error).__name__}: {error}")}
        np.savez(job["out"], **given)


if __name__ == "__main__":
    main(sys.argv[1])
