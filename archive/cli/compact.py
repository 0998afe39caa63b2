"""`dicom-archive compact`: fewer and larger packs, without what is deleted."""

import json
from typing import TYPE_CHECKING, Any

import click

from archive.cli.options import Place, say, with_place
from archive.cli.text import count, size
from archive.errors import ArchiveError, Locked

if TYPE_CHECKING:
    from archive.config import Settings


@click.command("compact", short_help="Join small packs and leave out what is deleted.")
@with_place
@click.option("--erase", is_flag=True, help="Prove that every byte of what was deleted is gone; wants the node stopped.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object in place of lines.")
def command(place: Place, erase: bool, as_json: bool) -> None:
    """Write packs again: small ones are joined, so are series that lie in several; deleted bytes are left out.

    Only packs of this node are touched. Every object stays what it was and is served all the time. Old packs are deleted after
    compaction.grace_seconds, by the running node or by the next `compact`. Works while the node runs and while it does not.

    With --erase everything is packed first, packs that hold deleted objects are written again and their old files deleted at once; spare
    journal segments, pool/ and derived/ are emptied, and the index is made anew. Exit code 0 says that nothing of what was ever
    deleted is left in the data folder and in the packs; else each file that may still hold some of it is named.
    """
    if erase:
        _erase(place.quiet_settings(), as_json)
        return
    report = compact(place)
    if as_json:
        click.echo(json.dumps({k: report[k] for k in ("packs_read", "packs_written", "length_dropped", "packs_waiting", "kept")}, indent=2))
    else:
        shorter = size(max(0, report["length_dropped"]))
        click.echo(f"{count(report['packs_read'], 'pack')} went on in {count(report['packs_written'], 'pack')}, {shorter} shorter")
        if report["packs_waiting"]:
            click.echo(f"{count(report['packs_waiting'], 'old pack')} to be deleted once the grace period is over")
    for text in report["kept"]:
        click.echo(f"kept {text}", err=True)
    if report["kept"]:
        raise ArchiveError(f"{count(len(report['kept']), 'pack')} could not be compacted")


def _erase(settings: "Settings", as_json: bool) -> None:
    from archive.node.access import alone, recover
    from archive.node.jobs import run_job
    from archive.node.layout import want_archive

    want_archive(settings)
    try:
        with alone(settings, "compact") as lock:
            recover(settings, lock, say)
            report = run_job("erase", settings, say, inherit=(lock.fd,))
    except Locked as error:
        raise Locked(f"compact --erase wants the node stopped: {error}") from error
    if as_json:
        click.echo(json.dumps(report, indent=2))
    for text in report["left"]:
        click.echo(f"left {text}", err=as_json)
    if report["left"]:
        raise ArchiveError(f"{count(len(report['left']), 'file')} may still hold something that was deleted")
    if not as_json:
        click.echo(f"{count(report['deleted'], 'deleted object')}: no byte of them is left")


def compact(place: Place) -> dict[str, Any]:
    """Have packs compacted; the report as JSON values."""
    from archive.node.asking import ask_or_do

    return ask_or_do(place.data_folder(), {"verb": "compact"}, say, lambda: _alone(place.quiet_settings()))


def _alone(settings: "Settings") -> dict[str, Any]:
    from archive.flow.compaction import Compactor
    from archive.flow.packing import Packer
    from archive.node.access import home_alone
    from archive.node.layout import want_archive
    from archive.node.messages import to_json

    want_archive(settings)
    with home_alone(settings, "compact", say) as home:
        report: dict[str, Any] = to_json(Compactor(home, Packer(home)).compact(say))
        return report
