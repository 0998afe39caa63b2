"""Which abstract syntaxes are stored: every one that the Standard does not define as something else (DICOM PS3.6 annex A).

A list of what is stored would turn away private classes and those of the Standard's next edition. pynetdicom knows the services
of the present one; what it does not know, retired services and UIDs that are no SOP classes, stands here.
"""

from functools import lru_cache

from pynetdicom.service_class import NonPatientObjectStorageServiceClass, ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

VERIFICATION = "1.2.840.10008.1.1"

_STORAGE_SERVICES = (StorageServiceClass, NonPatientObjectStorageServiceClass)
_UNKNOWN = ServiceClass

_STORED = frozenset(
    (
        "1.2.840.10008.5.1.1.27",  # Stored Print Storage (retired)
        "1.2.840.10008.5.1.1.29",  # Hardcopy Grayscale Image Storage (retired)
        "1.2.840.10008.5.1.1.30",  # Hardcopy Color Image Storage (retired)
    )
)

_OTHER = frozenset(
    (
        "1.2.840.10008.5.1.4.1.1.201.1.1",  # Storage Management SOP Instance
        "1.2.840.10008.5.1.4.34.2",  # RT Conventional Machine Verification - Trial
        "1.2.840.10008.5.1.4.34.3",  # RT Ion Machine Verification - Trial
    )
)

_OTHER_BRANCHES = tuple(
    f"1.2.840.10008.{branch}."
    for branch in (
        "1",  # verification, transfer syntaxes, media storage directory, storage commitment, event logging
        "2",  # coding schemes, object identifiers
        "3.1",  # application context, detached management, modality performed procedure step
        "4",  # service classes
        "5.1.1",  # print management, media creation, display system
        "5.1.4.32",  # general purpose worklist
        "5.1.4.34.4",  # unified procedure step, trial
        "5.1.4.34.5",  # unified procedure step, its well-known instances
        "5.1.5",  # printer configuration instances
        "6.1",  # coding schemes
        "7",  # application hosting
        "8",  # mapping resources
        "9",  # DICOM UIDs as a coding scheme
        "10",  # real-time communication
        "15",  # frames of reference, directory attributes
    )
)


@lru_cache(maxsize=4096)
def is_stored(abstract_syntax: str) -> bool:
    """Whether C-STORE may ask to keep objects of this SOP class.

    Parameters
    ----------
    abstract_syntax : str
        A well-formed UID.
    """
    if abstract_syntax in _STORED:
        return True
    if abstract_syntax in _OTHER or f"{abstract_syntax}.".startswith(_OTHER_BRANCHES):
        return False
    service = uid_to_service_class(abstract_syntax)
    return service is _UNKNOWN or service in _STORAGE_SERVICES
