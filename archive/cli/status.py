"""`dicom-archive status`: what is here, what waits, who runs."""

import json
from typing import Any

import click

from archive.cli.options import Place, say, with_place
from archive.cli.text import count, duration, size


@click.command("status", short_help="What is here, what waits, who runs.")
@with_place
@click.option("--json", "as_json", is_flag=True, help="One JSON object in place of lines; names carry their units.")
def command(place: Place, as_json: bool) -> None:
    """Say whether the node runs, what the archive holds, what waits in the journal and what is set aside.

    Works while the node runs and while it does not.
    """
    from archive.node.jobs import run_job
    from archive.node.layout import want_archive

    settings = place.quiet_settings()
    want_archive(settings)
    status = run_job("status", settings, say)
    if as_json:
        click.echo(json.dumps(status, indent=2))
        return
    for label, text in _lines(status):
        click.echo(f"{label:<10}{text}")


def _lines(status: dict[str, Any]) -> list[tuple[str, str]]:
    state = (
        f"running, {status['holder']}" if status["running"] else f"stopped, in use by {status['holder']}" if status["holder"] else "stopped"
    )
    held = f"{count(status['studies'], 'study')}, {count(status['series'], 'series')}, {count(status['instances'], 'instance')}"
    waiting = "nothing"
    if status["waiting_instances"]:
        age = duration(status["oldest_waiting_seconds"])
        waiting = f"{count(status['waiting_instances'], 'instance')}, {size(status['waiting_bytes'])}, the oldest for {age}"
    lines = [
        ("node", f"{status['node_name']} ({status['node_uuid']}) {state}"),
        ("data", status["data"]),
        ("tier", status["tier"]),
        *([("", f"does not work: {status['tier_problem']}")] if status["tier_problem"] else []),
        ("holds", held),
        ("packs", f"{count(status['packs'], 'pack')}, {size(status['pack_bytes'])}"),
        ("waiting", waiting),
    ]
    if status["packing_problem"]:
        lines.append(("packing", status["packing_problem"]))
    return lines + [("set aside", f"journal record {sequence}: {reason}") for sequence, reason in status["set_aside"].items()]
