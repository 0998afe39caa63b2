"""`dicom-archive rebuild-index`: the index anew, from packs and journal."""

import click

from archive.cli.options import Place, say, with_place
from archive.cli.text import count
from archive.errors import ArchiveError, Locked


@click.command("rebuild-index", short_help="Make the index anew from packs and journal.")
@with_place
def command(place: Place) -> None:
    """Make the index anew from the tails of the packs and from the journal, without reading pixel data.

    Wants the node stopped. Nothing is lost by it: the index is derived from what it is rebuilt from.
    """
    from archive.node.access import alone
    from archive.node.jobs import run_job

    settings = place.quiet_settings()
    try:
        with alone(settings, "rebuild-index") as lock:
            report = run_job("rebuild-index", settings, say, inherit=(lock.fd,))
    except Locked as error:
        raise Locked(f"rebuild-index wants the node stopped: {error}") from error
    for line in report["lines"]:
        click.echo(line)
    if report["damaged"]:
        raise ArchiveError(f"rebuild-index found {count(report['damaged'], 'damaged item')}")
