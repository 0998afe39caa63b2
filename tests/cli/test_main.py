"""The command line as a whole: help, exit codes, one line on stderr for every error."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from archive.cli import VERBS, main
from tests.kit import PROGRAM


def run(*arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(PROGRAM), *arguments], capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload,no-any-return]


def the_error(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dicom-archive: ") and err.count("\n") == 1 and err.endswith("\n"), err
    return err.removeprefix("dicom-archive: ").rstrip("\n")


def test_help_names_every_verb_with_a_line_about_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for verb in VERBS:
        (line,) = [line for line in out.splitlines() if line.split()[:1] == [verb]]
        assert len(line.split()) > 3


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_takes_the_common_options(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    for option in ("--config FILE", "--data DIR", "--tier URL"):
        assert option in out


def test_no_verb_shows_help_and_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Commands:" in err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dicom-archive 0.")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["dance"], "No such command 'dance'"),
        (["serve", "--dance"], "No such option"),
        (["serve", "--dimse-port", "x"], "'x' is not a valid integer"),
        (["serve", "--dimse-port", "70000"], "setting dimse.port"),
        (["serve", "--ae-title", "SEVENTEEN LETTERS"], "setting dimse.ae_title"),
        (["serve", "--node-name", "../etc"], "setting node.name"),
        (["serve", "--peer", "NOWHERE"], "expected TITLE=HOST:PORT"),
        (["serve", "--peer", "A=host:0"], "expected TITLE=HOST:PORT"),
        (["echo"], "Missing argument 'AE'"),
        (["echo", "NOBODY"], "no remote AE of that title has a host"),
        (["echo", "A=host"], "expected TITLE=HOST:PORT"),
        (["serve", "--host", "0.0.0.0"], "beyond loopback"),
        (["serve", "--tier", "gopher://old/"], "tier gopher://old/"),
        (["rebuild-index", "--tier", "file://host/dir"], "tier file://host/dir"),
        (["serve", "--config", "/no/such/file.toml"], "settings file /no/such/file.toml: No such file"),
        (["import"], "Missing argument 'PATH...'"),
        (["import", "/no/such/path"], "'/no/such/path' does not exist"),
        (["pack"], "say --now"),
        (["export", "1.2.3"], "Missing argument 'DEST'"),
    ],
)
def test_wrong_use_is_exit_code_2_and_one_line(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert text in the_error(capsys)
    assert list(tmp_path.iterdir()) == [], "wrong use leaves nothing behind"


def test_a_bad_setting_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[packer]\nquiet_second = 5\n")
    assert main(["verify", "--config", str(file)]) == 2
    assert "packer.quiet_second" in the_error(capsys)
    monkeypatch.setenv("DICOM_ARCHIVE_PACKER_QUIET", "5")
    assert main(["verify"]) == 2
    assert "DICOM_ARCHIVE_PACKER_QUIET" in the_error(capsys)


@pytest.mark.parametrize("arguments", [["status"], ["verify"], ["pack", "--now"], ["export", "1.2.3", "out"]])
def test_a_folder_without_an_archive_stays_without_one(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--data", str(tmp_path / "nothing")]) == 1
    assert the_error(capsys) == f"there is no archive in {tmp_path / 'nothing'}"
    assert list(tmp_path.iterdir()) == []


def test_the_installed_program_returns_the_exit_code(tmp_path: Path) -> None:
    assert run("status", "--data", str(tmp_path)).returncode == 1
    assert run("pack").returncode == 2
    assert run("--version").returncode == 0


def test_a_reader_that_has_enough_is_no_error() -> None:
    """As in `dicom-archive --help | head -1`."""
    with subprocess.Popen([str(PROGRAM), "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_the_program_starts_quickly() -> None:
    """Scripts call `pack --now` and `status` often: nothing heavy is imported before it is needed."""
    code = "import sys, archive.cli.pack, archive.cli.serve, archive.node.control, archive.node.access, archive.config\n"
    code += "print([m for m in ('pydicom', 'numpy', 'lmdb', 'aiohttp', 'pynetdicom', 'asyncio') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    started = time.monotonic()
    run("pack")
    assert time.monotonic() - started < 5.0
