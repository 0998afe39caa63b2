"""`dicom-archive echo AE`: whether a remote AE answers."""

import time

import click

from archive.cli.options import Place, peer_of, with_place
from archive.errors import ArchiveError, WrongUse


@click.command("echo", short_help="Ask a remote AE whether it is there (C-ECHO).")
@with_place
@click.argument("ae", metavar="AE")
def command(place: Place, ae: str) -> None:
    """Associate with a remote AE as this node does, and send it a C-ECHO.

    AE is a title of the table [peers] in the settings, or TITLE=HOST:PORT. The node need not run.
    """
    from archive.dimse.verification import echo

    title = ae
    if "=" in ae:
        title, address = peer_of(ae, "echo")
        settings = place.settings(peers={title: address})
    else:
        settings = place.settings()
    remote_ae = settings.peers.get(title)
    if remote_ae is None or not remote_ae.host:
        known = ", ".join(sorted(name for name, row in settings.peers.items() if row.host)) or "none"
        raise WrongUse(f"echo {ae}: no remote AE of that title has a host in [peers] (those that have: {known}); or say TITLE=HOST:PORT")
    started = time.monotonic()
    status = echo(title, remote_ae, settings.dimse)
    if status:
        raise ArchiveError(f"{title} at {remote_ae.host}:{remote_ae.port} answered with status 0x{status:04X}")
    click.echo(f"{title} at {remote_ae.host}:{remote_ae.port} answered in {(time.monotonic() - started) * 1000:.0f} ms")
