"""`dicom-archive delete`: instances, series or studies out of the archive."""

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from archive.cli.options import Place, say, with_place
from archive.cli.text import count, size
from archive.errors import WrongUse

if TYPE_CHECKING:
    from archive.config import Settings


@click.command("delete", short_help="Delete instances, series or studies.")
@with_place
@click.argument("uids", metavar="UID...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object in place of lines.")
def command(place: Place, uids: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Delete what Study, Series or SOP Instance UIDs name, every object that came under them.

    Says what each UID names and asks, unless --yes says so already. What is deleted cannot be found any more when this returns; the same
    object may be sent again later. Its bytes stay in packs until `compact` leaves them out (`compact --erase` proves that they are gone).

    Off unless deletion.allowed is set. Works while the node runs, whose settings count then, and while it does not.
    """
    if not yes:
        _confirm(run(place, list(uids), look=True)["doomed"])
    report = run(place, list(uids), look=False)
    if as_json:
        click.echo(json.dumps({key: report[key] for key in ("doomed", "records")}, indent=2))
        return
    for line in lines(report["doomed"]):
        click.echo(f"deleted {line}")


def lines(doomed: list[dict[str, Any]]) -> list[str]:
    """What each UID names, for people."""
    return [f"{d['level']} {d['uid']}: {count(d['revisions'], 'object')}, {size(d['length'])}" for d in doomed]


def _confirm(doomed: list[dict[str, Any]]) -> None:
    for line in lines(doomed):
        say(line)
    if not sys.stdin.isatty():
        raise WrongUse("delete: nothing was deleted; say --yes where nobody can be asked")
    click.confirm("Delete this?", abort=True, err=True)


def run(place: Place, uids: list[str], *, look: bool) -> dict[str, Any]:
    """Have UIDs deleted, or looked at; the report as JSON values."""
    from archive.node.asking import ask_or_do

    source = f"cli:uid={os.getuid()}"
    request = {"verb": "delete", "uids": uids, "source": source, "look": look}
    return ask_or_do(place.data_folder(), request, say, lambda: _alone(place.quiet_settings(), uids, source, look))


def _alone(settings: "Settings", uids: list[str], source: str, look: bool) -> dict[str, Any]:
    from archive.flow.deletion import Deleter, DeletionReport
    from archive.node.access import home_alone
    from archive.node.layout import want_archive
    from archive.node.messages import to_json

    want_archive(settings)
    with home_alone(settings, "delete", say) as home:
        deleter = Deleter(home)
        report: dict[str, Any] = to_json(DeletionReport(deleter.look(uids), 0) if look else deleter.delete(uids, source, say))
        return report
