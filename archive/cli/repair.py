"""`dicom-archive repair`: what `verify` found, mended from what is still whole."""

from typing import Any

import click

from archive.cli.options import Place, say, with_place
from archive.cli.text import count
from archive.errors import ArchiveError, Locked


@click.command("repair", short_help="Mend what verify finds, or say what would be done.")
@with_place
@click.option("--yes", is_flag=True, help="Do it. Without this nothing is changed: it is only said what would be done.")
@click.option("--accept-loss", is_flag=True, help="Give up for lost what cannot be mended, so that what is left is whole.")
@click.option("--replica", metavar="URL", default="", help="A tier that holds copies of the packs, as file:///backup.")
def command(place: Place, yes: bool, accept_loss: bool, replica: str) -> None:
    """Mend what `verify` finds: packs, journal, index.

    Wants the node stopped. A damaged pack is put together again as it was, from a replica, the pool, the journal, or the one bit that
    its checksum finds; where that cannot be, its whole objects go back into the journal and are packed anew. Journal records are mended
    likewise, and the index is made anew. What is taken out of service goes into quarantine (`quarantine/` in the data folder,
    `.quarantine/` in the tier), nothing is deleted. What cannot be mended is named, and stays as it is without --accept-loss.
    """
    from archive.node.access import alone
    from archive.node.jobs import run_job
    from archive.node.layout import want_archive

    settings = place.quiet_settings()
    want_archive(settings)
    try:
        with alone(settings, "repair") as lock:
            report = run_job("repair", settings, lambda text: None, inherit=(lock.fd,), apply=yes, accept_loss=accept_loss, replica=replica)
    except Locked as error:
        raise Locked(f"repair wants the node stopped: {error}") from error
    _tell(report, yes)


def _tell(report: dict[str, Any], done: bool) -> None:
    for step in report["steps"]:
        click.echo(f"{'done' if done else 'would do'}: {step}")
    for item in report["lost"]:
        click.echo(f"cannot be mended: {item}")
    left = report["left"]
    if not left:
        click.echo("nothing is damaged" + (" any more" if report["steps"] else ""))
        return
    if not done:
        if report["steps"]:
            say("nothing was changed; `repair --yes` does it")
        raise ArchiveError(f"{count(len(left), 'damaged item')} found, {count(len(report['lost']), 'item')} that cannot be mended")
    for finding in left:
        click.echo(f"damaged {finding['item']}: {finding['detail']}")
    raise ArchiveError(f"{count(len(left), 'damaged item')} left; --accept-loss gives up what cannot be mended")
