"""`echo`: what it says of a remote AE that answers, and of those that do not."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pynetdicom import AE, evt

from archive.cli import main
from tests.dimse.conftest import Served, serve  # noqa: F401
from tests.dimse.peer import CT, VERIFICATION
from tests.kit import free_port


@contextmanager
def scp(status: int = 0, sop_class: str = VERIFICATION) -> Iterator[int]:
    """pynetdicom's, which calls itself PACS and wants to be called so; its port."""
    ae = AE("PACS")
    ae.require_called_aet = True
    ae.add_supported_context(sop_class)
    port = free_port()
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_ECHO, lambda event: status)])
    assert server is not None
    try:
        yield port
    finally:
        server.shutdown()


def test_a_remote_ae_of_the_settings_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with scp() as port:
        (tmp_path / "settings.toml").write_text(f'[peers.PACS]\nhost = "127.0.0.1"\nport = {port}\n')
        assert main(["echo", "--config", str(tmp_path / "settings.toml"), "PACS"]) == 0
        assert capsys.readouterr().out.startswith(f"PACS at 127.0.0.1:{port} answered in ")
        assert main(["echo", f"PACS=127.0.0.1:{port}"]) == 0


def test_this_node_answers(serve: Callable[..., Served], capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    served = serve()
    assert main(["echo", f"ARCHIVE=127.0.0.1:{served.port}"]) == 0
    assert "answered in" in capsys.readouterr().out
    assert served.server.counters.echoes == 1


def failure(capsys: pytest.CaptureFixture[str], peer: str) -> str:
    assert main(["echo", peer]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


def test_what_went_wrong_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with scp() as port:
        assert "rejected, called ae title not recognized" in failure(capsys, f"OTHER=127.0.0.1:{port}")
    with scp(status=0x0122) as port:
        assert "answered with status 0x0122" in failure(capsys, f"PACS=127.0.0.1:{port}")
    with scp(sop_class=CT) as port:
        assert "no presentation context is accepted" in failure(capsys, f"PACS=127.0.0.1:{port}")
    assert "Connection refused" in failure(capsys, f"PACS=127.0.0.1:{free_port()}")


def test_a_remote_ae_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DICOM_ARCHIVE_DIMSE_ANSWER_SECONDS_MAX", "0.3")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert "silent for too long" in failure(capsys, f"PACS=127.0.0.1:{listener.getsockname()[1]}")
