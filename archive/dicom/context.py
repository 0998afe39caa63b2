"""What the elements of a data set, or of an item, need to know of each other to be understood.

The character set of text (0008,0005), the sign of `US or SS` (0028,0103), the owner of private elements: they stand in elements of
their own, and items inherit them (DICOM PS3.5 7.5.3, 7.8.1, annex A).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.datadict import dictionary_VR, private_dictionary_VR

from archive.dicom.charset import DEFAULT_ENCODINGS, encodings_of
from archive.dicom.scan import PIXEL_DATA, RawElement
from archive.dicom.syntax import Encoding
from archive.dicom.values import VRS

_SPECIFIC_CHARACTER_SET = 0x00080005
_BITS_ALLOCATED = 0x00280100
_PIXEL_REPRESENTATION = 0x00280103
_LUT_DESCRIPTOR = 0x00283002
_WAVEFORM_BITS_ALLOCATED = 0x54001004
_SHARED = frozenset((_SPECIFIC_CHARACTER_SET, _BITS_ALLOCATED, _PIXEL_REPRESENTATION, _LUT_DESCRIPTOR, _WAVEFORM_BITS_ALLOCATED))
# The first value of a LUT descriptor counts entries and is never negative, whatever the pixels are (DICOM PS3.3 C.11.1.1.1).
LUT_DESCRIPTORS = frozenset((0x00281101, 0x00281102, 0x00281103, 0x00283002))

SHARED_BYTES_MAX = 1024
"""Longest value of an element that others depend on; a longer one is no such value."""


def is_shared(tag: int) -> bool:
    """Whether other elements of the level depend on this one."""
    return tag in _SHARED or (tag >> 16 & 1 == 1 and 0x10 <= tag & 0xFFFF <= 0xFF)


@dataclass(frozen=True, slots=True)
class Context:
    """What is in force at one level of a data set.

    Parameters
    ----------
    encoding : Encoding
        How the elements of the level are written.
    encodings : tuple of str
        Encodings of text, by Python's names.
    signed : bool
        Pixel values are signed: `US or SS` means SS.
    shared : tuple of (tag, value)
        Private creators, and numbers that value representations depend on, of this level.
    """

    encoding: Encoding
    encodings: tuple[str, ...] = DEFAULT_ENCODINGS
    signed: bool = False
    shared: tuple[tuple[int, bytes], ...] = ()

    def inside(self, encoding: Encoding, shared: Iterable[tuple[int, bytes]]) -> "Context":
        """The context of a level inside this one (or of the outermost level, inside a bare context).

        Parameters
        ----------
        encoding : Encoding
            Of that level.
        shared : iterable of (tag, value)
            The level's elements for which `is_shared` holds, in order, with their raw values.
        """
        kept = dict(shared)
        encodings = encodings_of(kept[_SPECIFIC_CHARACTER_SET]) if _SPECIFIC_CHARACTER_SET in kept else self.encodings
        representation = kept.get(_PIXEL_REPRESENTATION, b"")
        signed = any(representation) if len(representation) == 2 else self.signed
        return Context(encoding, encodings, signed, tuple(kept.items()))

    def vr_of(self, element: RawElement) -> str:
        """The value representation of an element of this level, one of the Standard's two-letter names where it can be known.

        As written; from the dictionaries where none is written or it is UN (implicit VR, or written by someone who did not
        know the element); UN where nobody knows it.
        """
        vr = element.vr
        if vr == "" or vr == "UN":
            vr = self._looked_up(element)
        if len(vr) > 2:
            vr = self._decided(element, vr)
        if vr not in VRS:
            vr = "UN"
        return "SQ" if element.undefined and vr == "UN" else vr

    def _looked_up(self, element: RawElement) -> str:
        tag = element.tag
        if tag >> 16 & 1:
            if 0x10 <= tag & 0xFFFF <= 0xFF:
                return "LO"
            creator = self._shared_value(tag & 0xFFFF0000 | (tag & 0xFF00) >> 8)
            name = creator.decode("iso8859").strip(" \0") if creator else ""
            try:
                return private_dictionary_VR(tag, name) if name else "UN"
            except KeyError:
                return "UN"
        if element.vr == "UN" and element.length >= 0xFFFF and not element.undefined:
            return "UN"  # it is UN because a 16-bit length could not say so much (DICOM PS3.5 6.2.2)
        try:
            return dictionary_VR(tag)
        except KeyError:
            return "UL" if tag & 0xFFFF == 0 and not element.vr else "UN"

    def _decided(self, element: RawElement, choice: str) -> str:
        """One of the value representations between which the dictionary leaves a choice, by the Standard's rules for each."""
        if choice == "US or SS":
            return "SS" if self.signed else "US"
        if choice == "US or OW":
            return "US" if self.number(_LUT_DESCRIPTOR) == 1 else "OW"
        if choice != "OB or OW":
            return "OW"
        if element.undefined:
            return "OB"
        if not self.encoding.explicit or element.tag >> 24 == 0x60:
            return "OW"
        allocated = self.number(_BITS_ALLOCATED if element.tag == PIXEL_DATA else _WAVEFORM_BITS_ALLOCATED)
        return "OB" if 0 < allocated <= 8 else "OW"

    def _shared_value(self, tag: int) -> bytes:
        for shared, value in self.shared:
            if shared == tag:
                return value
        return b""

    def number(self, tag: int) -> int:
        """First number in a shared element of this level, 0 where there is none."""
        return int.from_bytes(self._shared_value(tag)[:2], "little" if self.encoding.little else "big")
