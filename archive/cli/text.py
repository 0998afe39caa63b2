"""Numbers for people."""

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def count(number: int, noun: str) -> str:
    """`1 pack`, `2 packs`, `3 studies`, `3 series`."""
    if number == 1 or noun.endswith("s"):
        return f"{number} {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


def size(length: int) -> str:
    """Bytes in powers of 1024."""
    value, unit = float(length), 0
    while value >= 1024 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{length} bytes" if not unit else f"{value:.1f} {UNITS[unit]}"


def duration(seconds: float) -> str:
    """The largest unit that fits, in whole numbers."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
