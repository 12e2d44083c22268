"""The size of one timed call, as a configuration, a table and the runner name it: `8x128`, `1x1+442`."""

from dataclasses import dataclass

from compress.errors import ConfigError

ALLOWED = (
    "batch x tokens, both at least 1, such as [1x128,8x128]; of images batch x pixels a side; of language "
    "models also batch x tokens + cached tokens, such as 1x1+442"
)


@dataclass(frozen=True)
class Workload:
    batch: int
    size: int  # tokens of a text, or pixels a side of an image
    past: int = 0  # tokens that a language model has in its cache before the call

    @classmethod
    def parse(cls, text: str) -> "Workload":
        """`"8x128"` -> 8, 128, 0; `"1x1+442"` -> 1, 1, 442. Raises ConfigError where it cannot be read."""
        sizes, plus, past = text.partition("+")
        numbers = [*sizes.split("x"), *([past] if plus else [])]
        if len(numbers) != 2 + bool(plus) or not all(n.isdecimal() and int(n) > 0 for n in numbers):
            raise ConfigError("workloads has an entry that cannot be read", found=text, allowed=ALLOWED)
        return cls(*map(int, numbers))

    def __str__(self) -> str:
        return f"{self.batch}x{self.size}" + (f"+{self.past}" if self.past else "")
