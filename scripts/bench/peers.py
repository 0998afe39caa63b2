"""Who is measured beside the node: DCMTK's storescp, Orthanc, nginx, bare aiohttp; each on free ports, stopped at the end."""

import getpass
import grp
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from scripts.bench.common import Missing, needs
from tests.kit import ROOT, find_program, free_port

START_SECONDS_MAX = 30.0
ORTHANC_DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
# DCMTK's switch; Orthanc receives with DCMTK too.
WITHOUT_NAGLE = os.environ | {"TCP_NODELAY": "1"}

_NGINX = """user {user} {group}; worker_processes 2; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


@contextmanager
def _running(command: list[str], ports: list[int], log: Path, environment: dict[str, str] | None = None, count: int = 1) -> Iterator[None]:
    """So many processes of a command, once their ports take connections."""
    with log.open("ab") as output:
        processes = [
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd=ROOT)
            for _ in range(count)
        ]
        try:
            for port in ports:
                _await_port(port, processes, log)
            yield
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _await_port(port: int, processes: list[subprocess.Popen[bytes]], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
                raise Missing(f"{processes[0].args!r} does not listen: {log.read_text(errors='replace')[-500:]}") from None
            time.sleep(0.05)


@contextmanager
def storescp(folder: Path, *arguments: str, keep: bool = True) -> Iterator[int]:
    """DCMTK's receiver without Nagle's algorithm, over a new folder; gives its port. Without `keep`, it stores nothing."""
    folder.mkdir()
    port = free_port()
    where = ["-od", str(folder)] if keep else ["--ignore"]
    command = [needs("storescp", "dcmtk"), "-pdu", "131072", *arguments, *where, str(port)]
    # A receiver that serves one association after the other would wait for the end of the one that only looked: no ports here.
    with _running(command, [], folder.with_suffix(".log"), dict(WITHOUT_NAGLE)):
        _await_listener(port)
        yield port
    shutil.rmtree(folder)


def _await_listener(port: int) -> None:
    """Wait for a listening socket without connecting to it."""
    wanted = f"{port:04X}"
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state = line.split()[:4]
                if state == "0A" and local.endswith(f":{wanted}"):
                    return
        time.sleep(0.02)
    raise Missing(f"nobody listens on port {port}")


def has_orthanc() -> bool:
    """Whether Orthanc and its DICOMweb plug-in are installed."""
    return find_program("Orthanc") is not None and ORTHANC_DICOMWEB.exists()


@contextmanager
def orthanc(folder: Path, destinations: Mapping[str, int] | None = None) -> Iterator[tuple[int, int]]:
    """Debian's Orthanc as it comes, with its DICOMweb plug-in; gives its DICOM and HTTP ports.

    Parameters
    ----------
    destinations : mapping of str to int
        Ports on this machine by AE title, to which it may move objects.
    """
    folder.mkdir()
    dicom_port, http_port = free_port(), free_port()
    settings = {
        "Name": "bench",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomAet": "ARCHIVE",
        "DicomPort": dicom_port,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {title: [title, "127.0.0.1", port] for title, port in (destinations or {}).items()},
        "Plugins": [str(ORTHANC_DICOMWEB)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    configuration = folder / "orthanc.json"
    configuration.write_text(json.dumps(settings))
    command = [needs("Orthanc", "orthanc"), str(configuration)]
    with _running(command, [http_port, dicom_port], folder / "log", dict(WITHOUT_NAGLE)):
        yield dicom_port, http_port


@contextmanager
def nginx(folder: Path, root: Path) -> Iterator[int]:
    """nginx with two workers and sendfile over the files of `root`; gives its port."""
    folder.mkdir()
    port = free_port()
    configuration = folder / "nginx.conf"
    group = grp.getgrgid(os.getegid()).gr_name
    configuration.write_text(_NGINX.format(user=getpass.getuser(), group=group, folder=folder, port=port, root=root))
    with _running([needs("nginx", "nginx-light"), "-c", str(configuration)], [port], folder / "log"):
        yield port


@contextmanager
def bare_aiohttp(body: Path, log: Path) -> Iterator[int]:
    """Two processes of aiohttp that answer everything with a gzipped body that they hold in memory; gives their port."""
    port = free_port()
    with _running([sys.executable, "-m", "scripts.bench.bare", str(port), str(body)], [port], log, count=2):
        time.sleep(0.5)  # Both share the port; one of them was seen.
        yield port
