"""The command line: argv in, text out. Each verb is a module of its own, imported when it is asked for."""

import importlib
import os
import sys

import click

from archive.errors import ArchiveError

VERBS = {
    "serve": "serve",
    "import": "importing",
    "export": "export",
    "pack": "pack",
    "delete": "delete",
    "compact": "compact",
    "echo": "echo",
    "status": "status",
    "verify": "verify",
    "repair": "repair",
    "rebuild-index": "rebuild_index",
}
"""Verbs by the module that has them as `command`, in the order of the help page."""

INTERRUPTED = 130


class Verbs(click.Group):
    """A group that imports a verb only when it is wanted: what one verb needs must not slow down another."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"archive.cli.{VERBS[cmd_name]}").command
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="dicom-archive", message="%(prog)s %(version)s")
def dicom_archive() -> None:
    """A DICOM archive node: images in by C-STORE, large immutable packs at rest, DICOMweb out.

    Every verb works on one data folder (--data, default ./var) and takes --config, --data and --tier. Settings come from the
    TOML file of --config, over them the environment (DICOM_ARCHIVE_<SECTION>_<KEY>), over both the command line.

    Exit codes: 0 done, 1 found or failed something, 2 wrong use.
    """


def main(arguments: list[str] | None = None) -> int:
    """Run a verb and return the exit code; an error is one line on stderr."""
    try:
        return dicom_archive.main(arguments, prog_name="dicom-archive", standalone_mode=False) or 0
    except ArchiveError as error:
        return _fail(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return 2
    except click.ClickException as error:
        hint = f" (see `{error.ctx.command_path} --help`)" if isinstance(error, click.UsageError) and error.ctx else ""
        return _fail(error.format_message() + hint, 2)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has enough; the interpreter must not flush into the closed pipe either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), 1)


def _fail(text: str, code: int) -> int:
    click.echo("dicom-archive: " + " ".join(text.split()), err=True)
    return code
