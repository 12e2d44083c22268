"""Where the graph of an artifact lies: in its root, or where @huggingface/transformers looks for it."""

PLAIN, TRANSFORMERS_JS = "plain", "transformers.js"
LAYOUTS = (PLAIN, TRANSFORMERS_JS)
# What a variant is called -> the dtype by which transformers.js asks for it, and how that ends a file's name
# (its `DEFAULT_DTYPE_SUFFIX_MAPPING`); float32 for all others.
_DTYPES = {
    "int8": ("q8", "_quantized"),
    "int4": ("q4", "_q4"),
    "mixed": ("q4", "_q4"),
    "fp16": ("fp16", "_fp16"),
    "q4f16": ("q4f16", "_q4f16"),
}


def dtype(variant: str) -> str:
    return _DTYPES.get(variant, ("fp32", ""))[0]


def graph_name(variant: str) -> str:
    """Of the graph in the folder of a model for transformers.js."""
    return f"onnx/model{_DTYPES.get(variant, ('fp32', ''))[1]}.onnx"
