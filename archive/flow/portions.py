"""What goes into one pack: whole series one behind the other, cut only where one is larger than a pack."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from archive.pack.descriptor import InstanceDescriptor
from archive.pack.pack_writer import INSTANCES_PER_PACK_MAX

Instance = TypeVar("Instance")


def portions(series: Iterable[list[Instance]], length_of: Callable[[Instance], int], bytes_target: int) -> Iterator[list[Instance]]:
    """Instances for one pack each, series after series, in the order given.

    Parameters
    ----------
    bytes_target : int
        A portion is filled up to this many bytes; one instance that is larger is a portion of its own.
    """
    portion: list[Instance] = []
    length = 0
    for instances in series:
        too_long = length + sum(map(length_of, instances)) > bytes_target
        if portion and (too_long or len(portion) + len(instances) > INSTANCES_PER_PACK_MAX):
            yield portion
            portion, length = [], 0
        for instance in instances:
            if portion and (length + length_of(instance) > bytes_target or len(portion) >= INSTANCES_PER_PACK_MAX):
                yield portion
                portion, length = [], 0
            portion.append(instance)
            length += length_of(instance)
    if portion:
        yield portion


def order_in_pack(descriptor: InstanceDescriptor) -> tuple[int, int]:
    """InstanceNumber, 0 where there is none that is a number; then arrival."""
    values = descriptor.attributes.get("00200013", {}).get("Value", [])
    return values[0] if values and isinstance(values[0], int) else 0, descriptor.revision.sequence
