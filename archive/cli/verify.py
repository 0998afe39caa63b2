"""`dicom-archive verify`: is all at rest as it was written?"""

from collections import Counter

import click

from archive.cli.options import Place, say, with_place
from archive.errors import ArchiveError, Damaged

WORDS = {"damage": "damaged", "unreferenced": "unreferenced", "disagreement": "disagreeing"}


@click.command("verify", short_help="Check everything at rest against its checksums.")
@with_place
def command(place: Place) -> None:
    """Check packs, journal and index against their checksums and each other.

    Works while the node runs. Each damaged item is named on a line `damaged ITEM: what is wrong`, and the exit code is 1.
    What is merely unreferenced (a leftover of a crash, say) is named as `unreferenced ITEM: ...`, a study whose instances do not agree
    about study or patient as `disagreeing study UID: ...`. Neither is damage: without any the exit code is 0.
    """
    from archive.node.jobs import run_job
    from archive.node.layout import want_archive

    settings = place.quiet_settings()
    want_archive(settings)
    try:
        findings = run_job("verify", settings, say)
    except Damaged as error:
        # The index crashed the process that read it: that is a finding like another.
        findings = [{"severity": "damage", "item": "index", "detail": str(error)}]
    for finding in findings:
        click.echo(f"{WORDS[finding['severity']]} {finding['item']}: {finding['detail']}")
    counts = Counter(finding["severity"] for finding in findings)
    damaged = counts.pop("damage", 0)
    rest = "".join(f", {counts[severity]} {word}" for severity, word in WORDS.items() if severity in counts)
    if damaged:
        raise ArchiveError(f"verify found {damaged} damaged item{'s' if damaged > 1 else ''}{rest}")
    click.echo(f"nothing is damaged{rest}")
