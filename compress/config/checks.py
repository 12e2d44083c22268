"""Range checks that several options share."""

from compress.errors import ConfigError

# A message of a check begins with the field's own name: `compose.to_config` puts the path before it.


def within(config: object, low: float, high: float, *names: str, open_low: bool = False) -> None:
    for name in names:
        value = getattr(config, name)
        if not (low < value if open_low else low <= value) or value > high:
            bracket = "(" if open_low else "["
            raise ConfigError(
                f"{name} is out of range",
                found=value,
                allowed=f"{bracket}{low:g}, {high:g}]" if high != float("inf") else f"at least {low:g}",
            )


def check_seed(config: object) -> None:
    within(config, 0, 2**32 - 1, "seed")
