"""The one table of settings: name, default, unit, help; TOML below environment below command line.

A setting is a field of a section; `DICOM_ARCHIVE_<SECTION>_<KEY>` is its environment variable and `[section] key = value`
its place in the TOML file. `docs/settings.md` and `config/dicom-archive.toml` are written from here (`scripts/settings`), and a test
fails where they differ.
"""

import os
import platform
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from archive.errors import WrongUse

ENVIRONMENT_PREFIX = "DICOM_ARCHIVE_"
MIB = 1 << 20
GIB = 1 << 30


def setting(default: Any, help: str, unit: str = "", **limits: Any) -> Any:
    """One row of the table."""
    return Field(default, description=help, json_schema_extra={"unit": unit}, validate_default=True, **limits)


AE_TITLE_PATTERN = r"^[^\\\s](?:[^\\]{0,14}[^\\\s])?$"
AeTitle = Annotated[str, StringConstraints(pattern=AE_TITLE_PATTERN)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:64] or "node"


class NodeSection(Section):
    name: str = setting(
        _host_name(), "Name of this node; its packs lie in a folder of this name.", pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}$"
    )
    data: Path = setting(Path("var"), "Folder of journal, index, pool, derived data and (embedded tier) packs.")
    tier: str = setting("", "Where packs rest: file:///dir, webhdfs://host:port[,host:port]/dir; empty: packs/ inside the data folder.")
    host: str = setting("127.0.0.1", "Address that the DICOM and HTTP ports are bound to.")
    open: bool = setting(False, "The explicit word that a node bound beyond loopback may serve every caller.")


class DimseSection(Section):
    port: int = setting(11112, "TCP port of the DICOM upper layer.", "port", ge=0, le=65535)
    ae_title: str = setting("ARCHIVE", "Application entity title of this node.", pattern=AE_TITLE_PATTERN)
    called_ae_title_required: bool = setting(False, "Reject associations that call another title than ours.")
    calling_ae_titles: list[str] = setting([], "Calling AE titles that may associate besides those of [peers]; empty: every caller.")
    unknown_callers_rejected: bool = setting(False, "Reject callers that neither calling_ae_titles nor [peers] names.")
    workers: int = setting(2, "Processes that receive.", "processes", ge=1, le=64)
    associations_max: int = setting(200, "Associations at once over all workers; one more is rejected with a reason.", "associations", ge=1)
    pdu_bytes_max: int = setting(262144, "Largest PDU that peers may send.", "bytes", ge=16384, le=16 * MIB)
    artim_seconds: float = setting(30.0, "Wait for A-ASSOCIATE-RQ, and for the close after a release or abort.", "seconds", gt=0)
    idle_seconds_max: float = setting(300.0, "An association that says nothing for this long is aborted.", "seconds", gt=0)
    stall_seconds_max: float = setting(30.0, "A peer that stops in the middle of a PDU for this long is dropped.", "seconds", gt=0)
    find_results_max: int = setting(10000, "Most answers to one C-FIND; where there are more it ends with a warning.", "answers", ge=1)
    find_relational: bool = setting(False, "Answer relational queries of callers that did not negotiate them, too.")
    connect_seconds_max: float = setting(10.0, "Wait for a remote AE to take a connection of ours.", "seconds", gt=0)
    answer_seconds_max: float = setting(
        60.0, "Wait for a remote AE to answer a request of ours, and for it to take what is sent.", "seconds", gt=0
    )
    move_associations_max: int = setting(4, "Associations to the destination of one C-MOVE.", "associations", ge=1, le=64)
    buffer_bytes_max: int = setting(
        96 * MIB, "Memory of one worker for objects on their way in; beyond it they stream to the journal.", "bytes", ge=MIB
    )


class WebSection(Section):
    port: int = setting(8080, "TCP port of the HTTP front end.", "port", ge=0, le=65535)
    workers: int = setting(2, "Processes that serve HTTP.", "processes", ge=1, le=64)
    requests_max: int = setting(200, "Requests at once in one worker; one more gets 503.", "requests", ge=1)
    connections_max: int = setting(1000, "Connections at once in one worker; one more gets 503 and is closed.", "connections", ge=1)
    idle_seconds_max: float = setting(75.0, "A connection without a request for this long is closed.", "seconds", gt=0)
    stall_seconds_max: float = setting(60.0, "A client that takes none of its answer for this long is cut off.", "seconds", gt=0)
    search_limit_max: int = setting(5000, "Most results of one search; a larger or missing limit is cut to it.", "results", ge=1)
    viewer: Path = setting(Path("viewer"), "Folder of the built OHIF viewer; relative to the data folder; served at / where it exists.")


class WebhdfsSection(Section):
    user: str = setting("", "User on HDFS (user.name); empty: the one that the node runs as.")
    kerberos: bool = setting(False, "Authenticate by Kerberos; needs the extra dicom-archive[kerberos].")
    data_nodes: list[str] = setting(
        [], "DataNodes that are reached elsewhere than they say: NAME=HOST, NAME=HOST:PORT or NAME:PORT=HOST:PORT."
    )
    connect_seconds: float = setting(3.0, "Wait for a connection.", "seconds", gt=0)
    answer_seconds: float = setting(10.0, "Wait for an answer, and for its next bytes.", "seconds", gt=0)
    commit_seconds: float = setting(120.0, "Wait until DataNodes confirm a pack, and until it has its replicas.", "seconds", gt=0)
    read_patience_seconds: float = setting(10.0, "What is read is tried again for so long where HDFS does not answer.", "seconds", ge=0)
    write_patience_seconds: float = setting(60.0, "The steps of a write are tried again for so long.", "seconds", ge=0)
    replicas_min: int = setting(2, "Live replicas of every block before a pack counts as resting.", "replicas", ge=1)
    block_bytes: int = setting(0, "Block size of packs; 0: as the cluster has it.", "bytes", ge=0, multiple_of=512)
    reads_max: int = setting(16, "Ranged reads at once in one process.", "reads", ge=1)
    in_flight_seconds_max: float = setting(
        604800.0, "Uploads of other nodes that were left unfinished so long are removed.", "seconds", ge=3600
    )


class JournalSection(Section):
    bytes_max: int = setting(8 * GIB, "Most bytes waiting in the journal; at it C-STORE answers 0xA700.", "bytes", ge=64 * MIB)
    segment_bytes: int = setting(64 * MIB, "Size of a journal segment.", "bytes", ge=MIB, le=4 * GIB)
    large_bytes: int = setting(4 * MIB, "Objects larger than this stream to a segment of their own.", "bytes", ge=64 * 1024)
    free_bytes_min: int = setting(64 * MIB, "Free disk space below which nothing is accepted.", "bytes", ge=0)
    mirror: str = setting("", "Folder on a second disk where the journal is kept a second time; empty: it is kept once.")
    spare_segments_max: int = setting(16, "Segments kept ready: released ones, and new ones whose blocks are written.", "segments", ge=0)


class PackerSection(Section):
    quiet_seconds: float = setting(10.0, "A series is packed when nothing came for it this long.", "seconds", ge=0)
    age_seconds_max: float = setting(3600.0, "A series is packed at this age even when more keeps coming.", "seconds", gt=0)
    pack_bytes_target: int = setting(256 * MIB, "Packs are filled up to this size.", "bytes", ge=MIB)
    packs_at_once_max: int = setting(2, "Packs that are written to the tier at the same time.", "packs", ge=1, le=16)
    follow_seconds: float = setting(60.0, "Packs of other nodes in the same tier are looked for so often.", "seconds", gt=0)
    pressure_ratio: float = setting(0.5, "Share of journal.bytes_max above which everything is packed at once.", "ratio", gt=0, le=1)


class IndexSection(Section):
    map_bytes_max: int = setting(256 * GIB, "Largest size of the index file (address space, not disk).", "bytes", ge=16 * MIB)
    revision_served: Literal["first", "last"] = setting("first", "Which object is served where several came under one SOP Instance UID.")
    revision_refused: bool = setting(False, "Refuse a different object under a known SOP Instance UID (0x0111) instead of keeping it.")


class CompactionSection(Section):
    small_ratio: float = setting(0.5, "Packs shorter than this share of packer.pack_bytes_target are joined.", "ratio", ge=0, le=1)
    rewrite_ratio: float = setting(
        0.25,
        "A pack is written again where this share of it is deleted, or of series that other packs have too.",
        "ratio",
        gt=0,
        le=1,
    )
    grace_seconds: float = setting(3600.0, "A pack whose content went on in another is deleted after this time.", "seconds", ge=0)


class DeletionSection(Section):
    allowed: bool = setting(False, "Whether anything may be deleted at all.")


class PoolSection(Section):
    bytes_max: int = setting(32 * GIB, "Bound of pool/, where packs of a tier on other machines come near.", "bytes", ge=16 * MIB)
    extent_bytes: int = setting(
        4 * MIB, "Packs come near in pieces of this size.", "bytes", ge=256 * 1024, le=64 * MIB, multiple_of=256 * 1024
    )
    free_bytes_min: int = setting(GIB, "Free disk space below which the pool gives up some of its own.", "bytes", ge=0)
    ahead_bytes_max: int = setting(256 * MIB, "Most of a series that is read ahead of its reader.", "bytes", ge=0)
    reads_max: int = setting(8, "Ranged reads of one process at once.", "reads", ge=2, le=64)
    ahead_reads_max: int = setting(3, "As many of them may read ahead.", "reads", ge=1, le=64)
    wait_seconds_max: float = setting(10.0, "A reader whose bytes do not come in this time is told to try again later.", "seconds", gt=0)


class LimitsSection(Section):
    inflated_bytes_max: int = setting(512 * MIB, "Largest size that a deflated data set may inflate to.", "bytes", ge=MIB)
    derived_bytes_max: int = setting(GIB, "Bound of derived/, which holds what can be made again.", "bytes", ge=MIB)


class CommitmentSection(Section):
    check: Literal["length", "digest"] = setting(
        "digest", "How a pack is looked at, at rest, before commitment is told: its length alone, or its SHA-256 too."
    )
    retry_seconds_max: float = setting(600.0, "Longest pause between two tries to tell a requestor.", "seconds", gt=0)
    age_seconds_max: float = setting(259200.0, "A request that could not be answered for so long is given up.", "seconds", gt=0)


class LogSection(Section):
    level: Literal["debug", "info", "warning", "error"] = setting("info", "Least severity that is logged.")


class AuditSection(Section):
    to: Literal["file", "log", "nowhere"] = setting("file", "Where who read or wrote what is told: audit/ in the data folder, or the log.")
    bytes_max: int = setting(64 * MIB, "A file of the audit log is followed by a new one at this size.", "bytes", ge=64 * 1024)
    files_max: int = setting(16, "Files of the audit log; the oldest goes when there is one more.", "files", ge=1, le=1000)


class RemoteAe(Section):
    """A row of the table of remote AEs; `"HOST:PORT"` alone is a row too. An unknown caller that is let in has the defaults."""

    host: str = setting("", "Where it listens; empty: it calls, and is never called.")
    port: int = setting(104, "TCP port that it listens on.", "port", ge=1, le=65535)
    may_query: bool = setting(True, "Its C-FIND is answered.")
    may_store: bool = setting(True, "Its C-STORE is taken, and its storage commitment requests.")
    may_retrieve: bool = setting(True, "Its C-MOVE and C-GET are answered.")
    may_be_moved_to: bool = setting(True, "It is a destination of C-MOVE, where it has a host.")
    associations_max: int = setting(0, "Associations at once that it may have; 0: no limit of its own.", "associations", ge=0)
    sop_classes: list[str] = setting([], "SOP classes that it may store; empty: all.")
    transfer_syntaxes: list[str] = setting([], "Transfer syntaxes in which it may store; empty: all.")

    @model_validator(mode="before")
    @classmethod
    def _split_address(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        host, _, port = value.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"{value!r} is not HOST:PORT")
        return {"host": host, "port": int(port)}


class Settings(Section):
    """All settings of a node, checked and immutable."""

    node: NodeSection = NodeSection()
    dimse: DimseSection = DimseSection()
    web: WebSection = WebSection()
    webhdfs: WebhdfsSection = WebhdfsSection()
    journal: JournalSection = JournalSection()
    packer: PackerSection = PackerSection()
    index: IndexSection = IndexSection()
    compaction: CompactionSection = CompactionSection()
    deletion: DeletionSection = DeletionSection()
    pool: PoolSection = PoolSection()
    limits: LimitsSection = LimitsSection()
    commitment: CommitmentSection = CommitmentSection()
    log: LogSection = LogSection()
    audit: AuditSection = AuditSection()
    peers: dict[AeTitle, RemoteAe] = {}


def association_limits(settings: Settings) -> dict[str, int]:
    """Associations at once by AE title, of the remote AEs that have a limit of their own."""
    return {title: row.associations_max for title, row in settings.peers.items() if row.associations_max}


class Row(NamedTuple):
    """One setting as a reader of the documentation sees it."""

    section: str
    key: str
    default: Any
    unit: str
    help: str


def settings_table() -> Iterator[Row]:
    """Every setting, in the order of the file."""
    for section, field in Settings.model_fields.items():
        kind = field.annotation
        if not (isinstance(kind, type) and issubclass(kind, Section)):
            section, kind = f"{section}.TITLE", RemoteAe
        for key, f in kind.model_fields.items():
            extra = f.json_schema_extra
            unit = str(extra.get("unit", "")) if isinstance(extra, dict) else ""
            default = "the host's name" if (section, key) == ("node", "name") else f.default
            yield Row(section, key, default, unit, f.description or "")


def load_settings(
    file: Path | None = None, overrides: dict[str, dict[str, Any]] | None = None, environment: dict[str, str] | None = None
) -> Settings:
    """Settings from defaults, TOML file, environment and command line, the later over the earlier.

    Parameters
    ----------
    file : Path, optional
        The TOML file; it must exist when given.
    overrides : dict, optional
        `{section: {key: value}}` from the command line; None values are left out.
    environment : dict, optional
        In place of `os.environ`.

    Raises
    ------
    WrongUse
        An unknown setting or a value out of its range, by name.
    """
    values: dict[str, dict[str, Any]] = {}
    if file is not None:
        try:
            values = tomllib.loads(file.read_text())
        except OSError as error:
            raise WrongUse(f"settings file {file}: {error.strerror}") from error
        except tomllib.TOMLDecodeError as error:
            raise WrongUse(f"settings file {file}: {error}") from error
    for name, text in sorted((os.environ if environment is None else environment).items()):
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        section, _, key = name[len(ENVIRONMENT_PREFIX) :].lower().partition("_")
        kind = Settings.model_fields[section].annotation if section in Settings.model_fields else None
        if not (isinstance(kind, type) and issubclass(kind, Section)):
            continue  # scripts have variables of their own under this prefix
        field = kind.model_fields.get(key)
        if field is None:
            raise WrongUse(f"environment variable {name}: there is no setting {section}.{key}")
        value: Any = [part.strip() for part in text.split(",") if part.strip()] if field.annotation == list[str] else text
        values.setdefault(section, {})[key] = value
    for section, pairs in (overrides or {}).items():
        values.setdefault(section, {}).update({k: v for k, v in pairs.items() if v is not None})
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise WrongUse(f"setting {'.'.join(str(p) for p in first['loc'])}: {first['msg']}") from error
