"""Options that every verb has, and the settings that come of them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from archive.config import Settings

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Place:
    """Which archive a verb works on: values of --config, --data and --tier, None where not given."""

    config: Path | None
    data: Path | None
    tier: str | None

    def data_folder(self) -> Path:
        """The data folder, absolute. Where --data says it no setting is read: a node that runs there has its own."""
        return self.data.absolute() if self.data else self.settings().node.data

    def settings(self, **sections: dict[str, Any]) -> "Settings":
        """Settings with the options of this verb on top; the data folder absolute.

        Parameters
        ----------
        **sections : dict
            `section={key: value}` from further options; None values are left out.

        Raises
        ------
        WrongUse
            An unknown setting, or a value out of its range.
        """
        from archive.config import load_settings
        from archive.node.layout import with_absolute_data

        node = {"data": self.data, "tier": self.tier, **sections.pop("node", {})}
        return with_absolute_data(load_settings(self.config, {"node": node, **sections}))

    def quiet_settings(self) -> "Settings":
        """The same for a verb whose output a person reads: the log goes to stderr and only says what is wrong."""
        from archive.node.logs import log_to_stderr

        settings = self.settings()
        if settings.log.level == "info":
            settings = settings.model_copy(update={"log": settings.log.model_copy(update={"level": "warning"})})
        log_to_stderr("", settings.log.level)
        return settings


def with_place(function: Function) -> Function:
    """Give a verb --config, --data and --tier, as its first argument `place`."""

    @functools.wraps(function)
    def command(config: Path | None, data: Path | None, tier: str | None, **rest: Any) -> Any:
        return function(Place(config, data, tier), **rest)

    path = click.Path(path_type=Path)
    for option in (
        click.option("--tier", metavar="URL", help="Where packs rest: file:///dir; by default packs/ inside the data folder."),
        click.option("--data", metavar="DIR", type=path, help="Folder of journal, index, pool and packs.  [default: var]"),
        click.option("--config", metavar="FILE", type=path, help="Settings in TOML."),
    ):
        command = option(command)
    return command  # type: ignore[return-value]


def say(text: str) -> None:
    """One line of progress, for people: on stderr, since stdout holds results."""
    click.echo(text, err=True)


def peer_of(text: str, what: str) -> tuple[str, Any]:
    """Title and address of a remote AE as `TITLE=HOST:PORT`.

    Raises
    ------
    WrongUse
        It is not that.
    """
    from archive.errors import WrongUse

    title, _, address = text.partition("=")
    host, _, port = address.rpartition(":")
    if not (title.strip() and len(title) <= 16 and "\\" not in title and host and port.isdecimal() and 0 < int(port) < 65536):
        raise WrongUse(f"{what} {text}: expected TITLE=HOST:PORT with a title of at most 16 characters")
    return title, address
