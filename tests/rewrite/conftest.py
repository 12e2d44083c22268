from tests.quantize.conftest import quantized  # noqa: F401
