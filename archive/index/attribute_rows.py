"""Attributes as the index keeps them: JSON, deflated with a dictionary of what all attributes look like; of many instances by columns.

A value of table `rows` is a list of three: how many instances; by tag what all of them say alike; by tag what they say one by one, a list,
or an object of a VR and a list of values where each has one value under that VR. None stands for an attribute that an instance lacks.
"""

import zlib
from collections.abc import Iterable
from operator import itemgetter
from typing import Any

from archive.dicom.attributes import INSTANCE_ATTRIBUTES, PATIENT_ATTRIBUTES, SERIES_ATTRIBUTES, STUDY_ATTRIBUTES, vr_of
from archive.dicom.json import dumps, loads

STUDY_LEVEL = frozenset(PATIENT_ATTRIBUTES + STUDY_ATTRIBUTES)
SERIES_LEVEL = STUDY_LEVEL | frozenset(SERIES_ATTRIBUTES)
INSTANCE_LEVEL = frozenset(INSTANCE_ATTRIBUTES)
_ALL_LEVELS = sorted(SERIES_LEVEL | INSTANCE_LEVEL)

DEFLATE_DICTIONARY = "".join(
    [
        *(f'"],"{tag}":{{"vr":"{vr_of(tag)}"}},"Value":["","values":[' for tag in _ALL_LEVELS),
        '"},"00100010":{"vr":"PN","Value":[{"Alphabetic":"',
        '","series":["1.2.840.113619.2."],"extents":[[,"instances":,"sop_classes":["1.2.840.10008.5.1.4.1.1."],"first":1',
        '{"attributes":{',
        *(f'"]}},"{tag}":{{"vr":"{vr_of(tag)}","Value":["' for tag in _ALL_LEVELS),
    ]
).encode()
"""What is deflated with one cannot be read with another: the index's format names it."""


def only(attributes: dict[str, Any], tags: frozenset[str]) -> dict[str, Any]:
    return {tag: value for tag, value in attributes.items() if tag in tags}


def pack_json(value: Any) -> bytes:
    deflate = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=DEFLATE_DICTIONARY)
    return deflate.compress(dumps(value)) + deflate.flush()


def unpack_json(data: bytes) -> Any:
    return loads(zlib.decompressobj(-zlib.MAX_WBITS, zdict=DEFLATE_DICTIONARY).decompress(data))


def pack_rows(attributes: list[dict[str, Any]]) -> bytes:
    """Of the instances of an extent, in order; attributes that searches do not know are left out."""
    alike: dict[str, Any] = {}
    apart: dict[str, Any] = {}
    for tag, values in sorted(_transposed(attributes), key=itemgetter(0)):
        if tag not in SERIES_LEVEL and tag not in INSTANCE_LEVEL:
            continue
        if values.count(values[0]) == len(values):
            alike[tag] = values[0]
        else:
            apart[tag] = _column(values)
    return pack_json([len(attributes), alike, apart])


def _transposed(attributes: list[dict[str, Any]]) -> Iterable[tuple[str, tuple[dict[str, Any] | None, ...]]]:
    tags = list(attributes[0])
    if all(list(one) == tags for one in attributes):
        return zip(tags, zip(*[one.values() for one in attributes], strict=True), strict=True)
    return [(tag, tuple(one.get(tag) for one in attributes)) for tag in set().union(*attributes)]


def _column(values: tuple[dict[str, Any] | None, ...]) -> Any:
    vr = (values[0] or {}).get("vr")
    if all(v is not None and v["vr"] == vr and len(v) == 2 and len(v.get("Value", ())) == 1 for v in values):
        return {"vr": vr, "values": [v["Value"][0] for v in values if v]}
    return values


def unpack_rows(data: bytes, tags: frozenset[str]) -> list[dict[str, Any]]:
    """Those of the tags that each instance has, in order of tag; one object for all where they say the same."""
    count, alike, apart = unpack_json(data)
    same = only(alike, tags)
    columns = {tag: _values(column) for tag, column in apart.items() if tag in tags}
    if not columns:
        return [same] * count
    lists = {tag: columns[tag] if tag in columns else [same[tag]] * count for tag in sorted({*same, *columns})}
    return [{tag: v for tag, v in zip(lists, line, strict=True) if v is not None} for line in zip(*lists.values(), strict=True)]


def _values(column: Any) -> list[dict[str, Any] | None]:
    if isinstance(column, list):
        return column
    return [{"vr": column["vr"], "Value": [value]} for value in column["values"]]
