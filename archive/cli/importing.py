"""`dicom-archive import`: take files and folders in, as C-STORE would."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from archive.cli.options import Place, say, with_place
from archive.cli.progress import Progress
from archive.errors import ArchiveError, Unavailable

if TYPE_CHECKING:
    from archive.config import Settings
    from archive.flow.home import Home

    Door = tuple[Home, Callable[[], object], Callable[[], None]]

LOOK_SECONDS = 1.0
"""Between two looks at whether the node still runs; the next one waits for guests of the last."""


@click.command("import", short_help="Take files and folders in.")
@with_place
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def command(place: Place, paths: tuple[Path, ...]) -> None:
    """Import DICOM files, and all that lie in folders.

    Each object is kept byte for byte, and is safe once it is counted. Works while the node runs, which then packs what came
    in, and while it does not: then this verb packs at the end.

    Files that are no DICOM Part 10 files are named and skipped. What the archive refuses is named with the reason, and the
    exit code is 1. Importing the same files again changes nothing.
    """
    from archive.cli.files import FileImport, walk
    from archive.flow.ingest import Ingest
    from archive.node.asking import node_runs

    settings = place.quiet_settings()
    files = list(walk(paths))
    way_in = _beside_the_node if node_runs(settings.node.data) else _alone
    with way_in(settings) as (home, make_room, keep_on), Progress(len(files), "files") as progress:
        work = FileImport(Ingest(home), make_room, progress.line)
        for _ in work.run(files):
            keep_on()
            progress.step(str(work))
    click.echo(str(work))
    if work.refused:
        raise ArchiveError(f"{work.refused} of {len(files)} files were refused")


@contextlib.contextmanager
def _beside_the_node(settings: "Settings") -> Iterator["Door"]:
    from archive.node.access import home_as_guest
    from archive.node.asking import ask, node_runs

    data = settings.node.data
    looked = time.monotonic()

    def keep_on() -> None:
        nonlocal looked
        if time.monotonic() - looked > LOOK_SECONDS:
            looked = time.monotonic()
            if not node_runs(data):
                raise Unavailable(f"the node of {data} stopped; import again, what came in already is safe")

    with home_as_guest(settings, "import") as home:
        yield home, lambda: ask(data, {"verb": "pack-now"}, say), keep_on


@contextlib.contextmanager
def _alone(settings: "Settings") -> Iterator["Door"]:
    from archive.flow.packing import Packer
    from archive.node.access import home_alone

    with home_alone(settings, "import", say) as home:
        packer = Packer(home)
        yield home, lambda: packer.pack_now(say), lambda: None
        packer.pack_now(say)
