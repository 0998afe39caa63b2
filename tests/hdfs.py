"""A real HDFS for tests: a cluster of their own by `scripts/hdfs`, looked at past the tier."""

import json
import shutil
import string
import subprocess
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from typing import Any

from tests.kit import ROOT, is_missing


@dataclass
class Hdfs:
    """One NameNode and three DataNodes below `run`.

    Attributes
    ----------
    address : str
        `HOST:PORT` of the NameNode's HTTP server, once it is up.
    """

    run: Path
    address: str = ""

    def up(self) -> "Hdfs":
        """Start what does not run; skips the test where it cannot."""
        if shutil.which("java") is None:
            is_missing("java is not installed")
        if shutil.which("mvn") is None and not list(ROOT.glob(".cache/hdfs/lib-*")):
            is_missing("maven is not installed, and .cache/hdfs holds no jars of Hadoop")
        self.address = self.command("up").splitlines()[-1].removeprefix("webhdfs://")
        for number in range(9):  # the first requests of a Java process take seconds
            self.write(f"/warm/{number}", bytes(3000))
            self.ask("GET", f"/warm/{number}", op="GETFILECHECKSUM")
        return self

    def command(self, *arguments: str) -> str:
        done = subprocess.run([ROOT / "scripts/hdfs", "--run", self.run, *arguments], capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def url(self, folder: str) -> str:
        return f"webhdfs://{self.address}{folder}"

    def ports(self) -> dict[str, dict[str, int]]:
        """`{"datanode-1": {"data": …, "ipc": …, "http": …}, "namenode": {"http": …, "rpc": …}}`"""
        ports: dict[str, dict[str, int]] = json.loads((self.run / "cluster.json").read_text())
        return ports

    def ask(self, method: str, path: str, **query: str) -> Any:
        """One WebHDFS operation as anybody does it, redirects followed; the JSON that it answers, None where it answers none."""
        asked = urllib.parse.urlencode({"user.name": getuser(), **query})
        request = urllib.request.Request(f"http://{self.address}/webhdfs/v1{urllib.parse.quote(path)}?{asked}", method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def files(self, folder: str) -> list[str]:
        """Names of all files below a folder, relative to it."""
        found = []
        for row in self._rows(folder):
            if row["type"] == "DIRECTORY":
                found += [f"{row['pathSuffix']}/{name}" for name in self.files(f"{folder}/{row['pathSuffix']}")]
            else:
                found.append(row["pathSuffix"])
        return sorted(found)

    def _rows(self, folder: str) -> list[dict[str, Any]]:
        try:
            rows: list[dict[str, Any]] = self.ask("GET", folder, op="LISTSTATUS")["FileStatuses"]["FileStatus"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise
        return rows

    def write(self, path: str, data: bytes) -> None:
        """A file, put there without the tier."""
        query = urllib.parse.urlencode({"op": "CREATE", "user.name": getuser(), "overwrite": "true", "noredirect": "true"})
        request = urllib.request.Request(f"http://{self.address}/webhdfs/v1{urllib.parse.quote(path)}?{query}", method="PUT")
        with urllib.request.urlopen(request, timeout=30) as answer:
            location = urllib.parse.quote(json.load(answer)["Location"], safe=string.printable)
        with urllib.request.urlopen(urllib.request.Request(location, data=data, method="PUT"), timeout=60) as answer:
            assert answer.status == 201

    def live_datanodes(self) -> int:
        with urllib.request.urlopen(f"http://{self.address}/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState", timeout=10) as answer:
            return int(json.load(answer)["beans"][0]["NumLiveDataNodes"])

    def wait_for_datanodes(self, count: int, wait_seconds: float = 60.0) -> None:
        until = time.monotonic() + wait_seconds
        while self.live_datanodes() != count:
            assert time.monotonic() < until, f"{self.live_datanodes()} DataNodes are live, waited for {count}"
            time.sleep(0.2)

    def last_words(self, lines: int = 25) -> str:
        """The end of each daemon's log."""
        logs = sorted(self.run.glob("*/log"))
        return "\n".join(f"--- {log.parent.name} ---\n" + "\n".join(log.read_text().splitlines()[-lines:]) for log in logs)

    def replica_files(self, datanode: int) -> list[Path]:
        """Block files on the disk of a DataNode, without their checksums."""
        folder = self.run / f"datanode-{datanode}" / "data"
        return sorted(path for path in folder.rglob("finalized/**/blk_*") if path.suffix != ".meta")
