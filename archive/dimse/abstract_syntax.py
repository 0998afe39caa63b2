"""Which abstract syntaxes are stored: every one that the Standard does not define as something else (DICOM PS3.6 annex A).

A list of what is stored would turn away private classes and those of the Standard's next edition.
"""

VERIFICATION = "1.2.840.10008.1.1"

_STORED = frozenset(
    (
        "1.2.840.10008.5.1.1.27",  # Stored Print Storage (retired)
        "1.2.840.10008.5.1.1.29",  # Hardcopy Grayscale Image Storage (retired)
        "1.2.840.10008.5.1.1.30",  # Hardcopy Color Image Storage (retired)
    )
)

_OTHER = frozenset(
    (
        "1.2.840.10008.5.1.4.1.1.200.4",  # Protocol Approval Information Model - FIND, MOVE, GET
        "1.2.840.10008.5.1.4.1.1.200.5",
        "1.2.840.10008.5.1.4.1.1.200.6",
        "1.2.840.10008.5.1.4.1.1.201.1.1",  # Storage Management SOP Instance
        "1.2.840.10008.5.1.4.1.1.201.2",  # Inventory - FIND, MOVE, GET, Creation
        "1.2.840.10008.5.1.4.1.1.201.3",
        "1.2.840.10008.5.1.4.1.1.201.4",
        "1.2.840.10008.5.1.4.1.1.201.5",
        "1.2.840.10008.5.1.4.1.1.201.6",  # Repository Query
        "1.2.840.10008.5.1.4.34.2",  # RT Conventional and Ion Machine Verification - Trial
        "1.2.840.10008.5.1.4.34.3",
        "1.2.840.10008.5.1.4.34.8",  # RT Conventional and Ion Machine Verification
        "1.2.840.10008.5.1.4.34.9",
    )
    # Information models of hanging protocols, color palettes and implant templates - FIND, MOVE, GET
    + tuple(f"1.2.840.10008.5.1.4.{root}.{operation}" for root in (38, 39, 43, 44, 45) for operation in (2, 3, 4))
)

_OTHER_BRANCHES = tuple(
    f"1.2.840.10008.{branch}."
    for branch in (
        "1",  # verification, transfer syntaxes, media storage directory, storage commitment, event logging
        "2",  # coding schemes, object identifiers
        "3.1",  # application context, detached management, modality performed procedure step
        "4",  # service classes
        "5.1.1",  # print management, media creation, display system
        "5.1.4.1.2",  # query/retrieve
        "5.1.4.20",  # defined procedure protocol information model
        "5.1.4.31",  # modality worklist
        "5.1.4.32",  # general purpose worklist
        "5.1.4.33",  # instance availability notification
        "5.1.4.34.4",  # unified procedure step, trial
        "5.1.4.34.5",  # unified procedure step, its well-known instances
        "5.1.4.34.6",
        "5.1.4.37",  # relevant patient information
        "5.1.4.41",  # product characteristics
        "5.1.4.42",  # substance approval
        "5.1.5",  # printer configuration instances
        "6.1",  # coding schemes
        "7",  # application hosting
        "8",  # mapping resources
        "9",  # DICOM UIDs as a coding scheme
        "10",  # real-time communication
        "15",  # frames of reference, directory attributes
    )
)


def is_stored(abstract_syntax: str) -> bool:
    """Whether C-STORE may ask to keep objects of this SOP class.

    Parameters
    ----------
    abstract_syntax : str
        A well-formed UID.
    """
    if abstract_syntax in _STORED:
        return True
    return abstract_syntax not in _OTHER and not f"{abstract_syntax}.".startswith(_OTHER_BRANCHES)
