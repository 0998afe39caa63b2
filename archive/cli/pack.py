"""`dicom-archive pack`: bring what waits in the journal to rest."""

from typing import TYPE_CHECKING, Any

import click

from archive.cli.options import Place, say, with_place
from archive.cli.text import count, size
from archive.errors import ArchiveError, WrongUse

if TYPE_CHECKING:
    from archive.config import Settings


@click.command("pack", short_help="Bring what waits in the journal to rest in packs.")
@with_place
@click.option("--now", is_flag=True, help="Do not wait for series to be quiet; required.")
def command(place: Place, now: bool) -> None:
    """Pack everything that was accepted before this call, and return when it is COMMITTED.

    While the node runs its packer does it; else this verb does it by itself, after recovery.
    """
    if not now:
        raise WrongUse("pack: say --now; a running node packs by itself as series become quiet")
    report = pack_now(place)
    click.echo(f"{count(report['instances'], 'instance')} packed into {count(report['packs'], 'pack')} of {size(report['length'])}")
    aside = report["set_aside"]
    for sequence, reason in aside.items():
        click.echo(f"set aside journal record {sequence}: {reason}")
    if aside:
        raise ArchiveError(f"{count(len(aside), 'record')} of the journal cannot be packed; repair the journal or send the objects again")


def pack_now(place: Place) -> dict[str, Any]:
    """Have everything packed that was accepted before the call; returns the packer's report as JSON values."""
    from archive.node.asking import ask_or_do

    return ask_or_do(place.data_folder(), {"verb": "pack-now"}, say, lambda: _pack_alone(place.quiet_settings()))


def _pack_alone(settings: "Settings") -> dict[str, Any]:
    from archive.flow.packing import Packer
    from archive.node.access import home_alone
    from archive.node.layout import want_archive
    from archive.node.messages import to_json

    want_archive(settings)
    with home_alone(settings, "pack", say) as home:
        report: dict[str, Any] = to_json(Packer(home).pack_now(say))
        return report
