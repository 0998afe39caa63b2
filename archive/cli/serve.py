"""`dicom-archive serve`: run the node."""

import contextlib

import click

from archive.cli.options import Place, peer_of, with_place


@click.command("serve", short_help="Run the node.")
@with_place
@click.option("--ae-title", metavar="TITLE", help="Application entity title of this node.  [default: ARCHIVE]")
@click.option("--host", metavar="ADDR", help="Address that both ports are bound to.  [default: 127.0.0.1]")
@click.option("--dimse-port", metavar="N", type=int, help="Port of C-STORE and the other DIMSE services; 0: a free one.  [default: 11112]")
@click.option("--http-port", metavar="N", type=int, help="Port of DICOMweb and the viewer; 0: a free one.  [default: 8080]")
@click.option("--node-name", metavar="NAME", help="Name of this node among others on the same tier.  [default: the host's]")
@click.option("--peer", "peers", metavar="TITLE=HOST:PORT", multiple=True, help="A remote AE; may be given several times.")
@click.option("--open", "opened", is_flag=True, help="Beyond loopback, serve every caller that comes.")
def command(
    place: Place,
    ae_title: str | None,
    host: str | None,
    dimse_port: int | None,
    http_port: int | None,
    node_name: str | None,
    peers: tuple[str, ...],
    opened: bool,
) -> None:
    """Run the node until SIGTERM or SIGINT.

    Prints one line `ready dimse=HOST:PORT http=http://HOST:PORT` on stdout once both ports accept; the log goes to stderr.
    What an unclean stop left is settled first.

    On loopback every caller is welcome. Bound elsewhere, the node starts only with --open, since HTTP does not know its
    callers yet.
    """
    from archive.node.supervisor import serve

    settings = place.settings(
        node={"host": host, "name": node_name, "open": True if opened else None},
        dimse={"ae_title": ae_title, "port": dimse_port},
        web={"port": http_port},
        peers=dict(peer_of(text, "--peer") for text in peers),
    )
    serve(settings, _announce)


def _announce(line: str) -> None:
    # A node whose starter no longer listens serves all the same.
    with contextlib.suppress(BrokenPipeError):
        click.echo(line)
