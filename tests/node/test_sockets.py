"""Sockets that workers inherit, the control socket, and who may be served (promise P8)."""

import os
import socket
import stat
from contextlib import closing
from pathlib import Path

import pytest

from archive.config import Settings, load_settings
from archive.errors import ArchiveError, WrongUse
from archive.node.sockets import address_of, bind, bind_control, connect_control, listen, want_policy
from tests.kit import free_port


def settings(**node: object) -> Settings:
    dimse = {"calling_ae_titles": node.pop("calling_ae_titles", [])}
    return load_settings(overrides={"node": node, "dimse": dimse}, environment={})


def test_callers_are_refused_until_it_listens() -> None:
    with closing(bind("127.0.0.1", 0)) as listener:
        host, _, port = address_of(listener).rpartition(":")
        assert host == "127.0.0.1" and int(port) > 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)))
        listen(listener)
        socket.create_connection((host, int(port))).close()


def test_an_ipv6_address_is_written_in_brackets() -> None:
    with closing(bind("::1", 0)) as listener:
        assert address_of(listener).startswith("[::1]:")


def test_a_taken_port_is_named() -> None:
    port = free_port()
    with closing(bind("127.0.0.1", port)) as first:
        listen(first)
        with pytest.raises(ArchiveError, match=f"127.0.0.1:{port}: Address already in use"), closing(bind("127.0.0.1", port)) as second:
            listen(second)


def test_an_address_of_another_host_is_named() -> None:
    with pytest.raises(ArchiveError, match="192.0.2.1"):
        bind("192.0.2.1", 0)
    with pytest.raises(WrongUse, match="no.such.host.invalid"):
        bind("no.such.host.invalid", 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_on_loopback_every_caller_is_welcome(host: str) -> None:
    want_policy(settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_beyond_loopback_it_wants_a_policy(host: str) -> None:
    with pytest.raises(WrongUse, match="beyond loopback.*dimse.calling_ae_titles.*HTTP.*--open"):
        want_policy(settings(host=host))
    with pytest.raises(WrongUse, match="HTTP has no access control") as caught:
        want_policy(settings(host=host, calling_ae_titles=["CT1"]))
    assert "calling_ae_titles" not in str(caught.value)
    want_policy(settings(host=host, open=True))


def test_the_control_socket_works_below_a_long_path_for_its_user_alone(tmp_path: Path) -> None:
    data = tmp_path / ("x" * 100) / ("y" * 100)
    data.mkdir(parents=True)
    with closing(bind_control(data)) as listener:
        assert stat.S_IMODE(os.stat(data / "control.sock").st_mode) == 0o600
        with closing(connect_control(data)):
            listener.accept()[0].close()
    with pytest.raises(ConnectionRefusedError):
        connect_control(data)
    bind_control(data).close()


def test_no_control_socket_is_no_node(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        connect_control(tmp_path)
