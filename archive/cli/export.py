"""`dicom-archive export`: a study as files."""

import contextlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from archive.cli.options import Place, say, with_place
from archive.cli.progress import Progress
from archive.disk import LOCAL_DISK
from archive.errors import ArchiveError

if TYPE_CHECKING:
    from archive.flow.retrieve import Retrieval, Stored

ZIP_DATE = (1980, 1, 1, 0, 0, 0)
"""The first that ZIP can say: the same study gives the same file."""

Put = Callable[[str, int, Iterable[memoryview]], None]


@click.command("export", short_help="Write a study as a folder or a ZIP file.")
@with_place
@click.argument("study_instance_uid", metavar="STUDY_UID")
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@click.option("--zip", "as_zip", is_flag=True, help="Write one ZIP file in place of a folder.")
def command(place: Place, study_instance_uid: str, destination: Path, as_zip: bool) -> None:
    """Export a study to DEST, as STUDY/SERIES/INSTANCE.dcm below it.

    DEST is a new folder, or a new ZIP file with --zip; it appears when it is complete, and nothing is ever overwritten.
    Every object is checked against its checksums on its way out. Works while the node runs and while it does not.
    """
    from archive.dicom.uid import check_uid
    from archive.flow.retrieve import Retrieval
    from archive.node.access import reading_home
    from archive.node.layout import want_archive

    check_uid(study_instance_uid, "STUDY_UID")
    settings = place.quiet_settings()
    want_archive(settings)
    with reading_home(settings, "export", say) as home:
        retrieval = Retrieval(home)
        instances = list(retrieval.instances(study_instance_uid))
        with (_new_zip if as_zip else _new_folder)(destination) as put:
            _export(retrieval, instances, put)
    click.echo(f"{len(instances)} instances in {destination}")


def _export(retrieval: "Retrieval", instances: "list[Stored]", put: Put) -> None:
    from archive.dicom.uid import check_uid

    with Progress(len(instances), "instances") as progress:
        for stored in instances:
            uids = (stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid)
            name = "/".join(check_uid(uid) for uid in uids) + ".dcm"
            with retrieval.open(stored) as opened:
                put(name, stored.length, opened.chunks(0, stored.length))
            progress.step()


@contextlib.contextmanager
def _new_folder(destination: Path) -> Iterator[Put]:
    """A folder that appears under its name when all is written."""
    parent = _free(destination)
    temporary = Path(tempfile.mkdtemp(prefix=f".{destination.name[:100]}.", dir=parent))
    folders = {temporary}

    def put(name: str, length: int, chunks: Iterable[memoryview]) -> None:
        path = temporary / name
        path.parent.mkdir(parents=True, exist_ok=True)
        folders.update((path.parent, path.parent.parent))
        with open(path, "xb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            LOCAL_DISK.sync(file.fileno())

    try:
        yield put
        os.chmod(temporary, 0o777 & ~_umask())
        for folder in folders:
            LOCAL_DISK.sync_folder(folder)
        if destination.exists():
            raise ArchiveError(f"{destination} appeared meanwhile and is not overwritten")
        temporary.rename(destination)
        LOCAL_DISK.sync_folder(parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def _new_zip(destination: Path) -> Iterator[Put]:
    """A ZIP file, stored and not deflated, that appears under its name when all is written."""
    parent = _free(destination)
    fd, temporary = tempfile.mkstemp(prefix=f".{destination.name[:100]}.", dir=parent)
    try:
        with open(fd, "w+b") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

                def put(name: str, length: int, chunks: Iterable[memoryview]) -> None:
                    entry = zipfile.ZipInfo(name, ZIP_DATE)
                    entry.external_attr = 0o644 << 16
                    entry.file_size = length
                    with archive.open(entry, "w") as target:
                        for chunk in chunks:
                            target.write(chunk)

                yield put
            file.flush()
            os.fchmod(fd, 0o666 & ~_umask())
            LOCAL_DISK.sync(fd)
        # Unlike a rename, a link never replaces a file that appeared meanwhile.
        os.link(temporary, destination)
        LOCAL_DISK.sync_folder(parent)
    finally:
        os.unlink(temporary)


def _free(destination: Path) -> Path:
    """The folder of a name that is still free."""
    if os.path.lexists(destination):
        raise ArchiveError(f"{destination} exists and is not overwritten")
    return destination.absolute().parent


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
