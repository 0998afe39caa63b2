"""A real HDFS on this machine: one NameNode and N DataNodes of Apache Hadoop, each a Java process, no container.

The jars come from Maven Central (`deploy/hdfs/pom.xml`) into `.cache/hdfs/`; everything that the cluster writes lies in `.cache/hdfs/run`,
or in the folder that `--run` names. What was stored, and the ports, outlive `down` and come back with `up`.
"""

import argparse
import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
POM = ROOT / "deploy" / "hdfs" / "pom.xml"
CACHE = ROOT / ".cache" / "hdfs"
LOWEST_PORT, HIGHEST_PORT = 20000, 32000  # below the ephemeral range, where outgoing connections take theirs
JAVA_OPTIONS = [
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xmx256m",
    "-Djava.net.preferIPv4Stack=true",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
]
"""A cluster for tests lives for minutes: the optimising compiler would keep a processor busy for most of them and pay off later."""
NAMENODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
DATANODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"
ADMIN = "org.apache.hadoop.hdfs.tools.DFSAdmin"
PORTS = {"namenode": ["http", "rpc"], "datanode": ["data", "ipc", "http"]}
LOG4J = """log4j.rootLogger=WARN,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{ISO8601} %p %c{2}: %m%n
"""


class Failed(Exception):
    """One sentence for people."""


# --- jars


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Failed(f"{name} is not installed (Debian: apt-get install {package})")
    return found


def jars() -> Path:
    """The folder with Hadoop's jars, fetched when it is not there."""
    version = ElementTree.parse(POM).findtext(".//{*}hadoop.version")
    folder = CACHE / f"lib-{version}"
    if folder.is_dir():
        return folder
    maven = program("mvn", "maven")
    print(f"fetching Apache Hadoop {version} from Maven Central into {folder.relative_to(ROOT)}", file=sys.stderr)
    part = CACHE / f".lib-{os.getpid()}"
    copy = [maven, "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={part}"]
    done = subprocess.run(copy, capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(part, ignore_errors=True)
        raise Failed(f"Maven could not fetch Hadoop {version}:\n{(done.stdout + done.stderr)[-2000:]}")
    try:
        part.rename(folder)
    except OSError:  # another was quicker
        shutil.rmtree(part)
    return folder


# --- one daemon


class Daemon:
    """A Java process whose id and start time lie in a file, so that no stranger that got the id later is taken for it."""

    def __init__(self, run: Path, name: str) -> None:
        self.name, self.folder = name, run / name
        self._pid_file, self.log = self.folder / "pid", self.folder / "log"

    def pid(self) -> int:
        """0 where it does not run."""
        try:
            pid, started = self._pid_file.read_text().split()
        except (OSError, ValueError):
            return 0
        return int(pid) if _started(int(pid)) == started else 0

    def start(self, command: list[str], run: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as log:
            process = subprocess.Popen(command, cwd=run, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self._pid_file.write_text(f"{process.pid} {_started(process.pid)}")

    def pause(self, number: signal.Signals = signal.SIGSTOP) -> None:
        """It keeps its connections and takes more, and says nothing; SIGCONT lets it go on."""
        pid = self.pid()
        if pid:
            _send(pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM, wait_seconds: float = 20.0) -> None:
        pid = self.pid()
        if pid:
            self.pause(signal.SIGCONT)
            _send(pid, number)
            waiting_until = time.monotonic() + wait_seconds
            while self.pid() and time.monotonic() < waiting_until:
                time.sleep(0.05)
            if self.pid():
                _send(pid, signal.SIGKILL)
            while self.pid():
                time.sleep(0.05)
        self._pid_file.unlink(missing_ok=True)

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""


def _started(pid: int) -> str:
    """When a process was started, in clock ticks since boot; empty where there is none, or only its zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


# --- the cluster


class Cluster:
    """NameNode and DataNodes below one folder; `cluster.json` there holds their number and ports."""

    def __init__(self, run: Path) -> None:
        self.run, self._file = run, run / "cluster.json"
        self.namenode = Daemon(run, "namenode")
        self._ports: dict[str, dict[str, int]] = json.loads(self._file.read_text()) if self._file.exists() else {}

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self._ports['namenode']['http']}"

    def datanodes(self) -> dict[int, Daemon]:
        return {
            number: Daemon(self.run, f"datanode-{number}") for number in range(1, len(self._ports)) if f"datanode-{number}" in self._ports
        }

    def datanode(self, number: int) -> Daemon:
        if number not in self.datanodes():
            raise Failed(f"there is no DataNode {number}; up was asked for {len(self.datanodes())}")
        return self.datanodes()[number]

    def is_up(self) -> bool:
        return (
            bool(self._ports)
            and all(daemon.pid() for daemon in (self.namenode, *self.datanodes().values()))
            and self._live() >= len(self.datanodes())
        )

    def up(self, datanodes: int | None) -> None:
        """Start what does not run, wait until all of it is ready."""
        program("java", "default-jre-headless")
        for number, surplus in self.datanodes().items():
            if datanodes is not None and number > datanodes:
                surplus.stop()
                del self._ports[surplus.name]
        count = datanodes or len(self.datanodes()) or 3
        for name in ("namenode", *(f"datanode-{number}" for number in range(1, count + 1))):
            if name not in self._ports or not (Daemon(self.run, name).pid() or all(map(is_free, self._ports[name].values()))):
                self._ports[name] = {port: free_port() for port in PORTS[name.partition("-")[0]]}
        self.run.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self._ports, indent=1))
        self._write_configuration()
        if not (self.namenode.folder / "name" / "current" / "VERSION").exists():
            self._format()
        self.start_namenode()
        for number in self.datanodes():
            self.start_datanode(number)
        self.wait(len(self.datanodes()))

    def down(self) -> None:
        for daemon in (*self.datanodes().values(), self.namenode):
            daemon.stop()

    def admin(self, *arguments: str) -> None:
        """A command of `hdfs dfsadmin`."""
        done = subprocess.run([*self.java(ADMIN), *arguments], cwd=self.run, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"dfsadmin {' '.join(arguments)} failed:\n{(done.stdout + done.stderr)[-2000:]}")

    def start_namenode(self) -> None:
        self.namenode.pause(signal.SIGCONT)
        if not self.namenode.pid():
            self.namenode.start(self.java(NAMENODE), self.run)

    def start_datanode(self, number: int) -> None:
        daemon = self.datanode(number)
        daemon.pause(signal.SIGCONT)
        if daemon.pid():
            return
        ports = self._ports[daemon.name]
        options = {"data.dir": f"file://{daemon.folder}/data", "address": f"127.0.0.1:{ports['data']}"}
        options |= {"ipc.address": f"127.0.0.1:{ports['ipc']}", "http.address": f"127.0.0.1:{ports['http']}"}
        arguments = [part for key, value in options.items() for part in ("-D", f"dfs.datanode.{key}={value}")]
        daemon.start([*self.java(DATANODE), *arguments], self.run)

    def wait(self, datanodes: int, wait_seconds: float = 180.0) -> None:
        """Until the NameNode has left safe mode and hears that many DataNodes."""
        waiting_until = time.monotonic() + wait_seconds
        running = [number for number, daemon in self.datanodes().items() if daemon.pid()]
        while self._live() < datanodes or not all(map(self._is_registered, running)):
            for daemon in (self.namenode, *self.datanodes().values()):
                if not daemon.pid() and daemon.log.exists():
                    raise Failed(f"{daemon.name} ended; the end of {daemon.log}:\n{daemon.last_words()}")
            if time.monotonic() > waiting_until:
                raise Failed(
                    f"{self._live()} of {datanodes} DataNodes are live after {wait_seconds:.0f} s; the logs are in {self.run}/*/log"
                )
            time.sleep(0.2)

    def _live(self) -> int:
        """DataNodes that the NameNode hears; -1 while it does not answer or is in safe mode."""
        state = bean(self.url, "Hadoop:service=NameNode,name=FSNamesystemState")
        return int(state["NumLiveDataNodes"]) if state.get("FSState") == "Operational" else -1

    def _is_registered(self, number: int) -> bool:
        """Whether a DataNode itself says that the NameNode knows it, which takes one that was dead for live a while longer."""
        info = bean(f"127.0.0.1:{self._ports[f'datanode-{number}']['http']}", "Hadoop:service=DataNode,name=DataNodeInfo")
        actors = json.loads(info.get("BPServiceActorInfo", "[]"))
        return bool(actors) and all(actor["ActorState"] == "RUNNING" for actor in actors)

    def java(self, main: str) -> list[str]:
        """How a program of Hadoop is run with this cluster's configuration."""
        hosts = f"-Djdk.net.hosts.file={self.run}/conf/hosts"
        return [program("java", "default-jre-headless"), *JAVA_OPTIONS, hosts, "-cp", f"{self.run}/conf:{jars()}/*", main]

    def _format(self) -> None:
        done = subprocess.run([*self.java(NAMENODE), "-format", "-nonInteractive"], cwd=self.run, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"the NameNode's folder could not be made:\n{(done.stdout + done.stderr)[-2000:]}")

    def _write_configuration(self) -> None:
        ports, count = self._ports["namenode"], len(self.datanodes())
        core = {"fs.defaultFS": f"hdfs://127.0.0.1:{ports['rpc']}", "hadoop.tmp.dir": f"{self.run}/tmp"}
        hdfs = {
            "dfs.replication": min(3, count),
            "dfs.webhdfs.enabled": "true",
            "dfs.namenode.name.dir": f"file://{self.namenode.folder}/name",
            "dfs.namenode.http-address": f"127.0.0.1:{ports['http']}",
            "dfs.namenode.datanode.registration.ip-hostname-check": "false",
            "dfs.datanode.hostname": "127.0.0.1",
            # A dead DataNode is noticed in 12 seconds instead of ten minutes, safe mode ends at once.
            "dfs.heartbeat.interval": 1,
            "dfs.namenode.heartbeat.recheck-interval": 1000,
            "dfs.namenode.redundancy.interval.seconds": 1,
            # With three DataNodes each is needed for every block: none is passed over as too busy, a copy that failed is tried again soon.
            "dfs.namenode.redundancy.considerLoad": "false",
            "dfs.namenode.reconstruction.pending.timeout-sec": 5,
            "dfs.namenode.safemode.extension": 0,
        }
        folder = self.run / "conf"
        for webapp in ("hdfs", "datanode", "journal", "secondary"):  # the jars lack them and the daemons look for them
            (folder / "webapps" / webapp / "WEB-INF").mkdir(parents=True, exist_ok=True)
        for name, values in (("core-site.xml", core), ("hdfs-site.xml", hdfs)):
            rows = "".join(f"<property><name>{key}</name><value>{escape(str(value))}</value></property>\n" for key, value in values.items())
            (folder / name).write_text(f'<?xml version="1.0"?>\n<configuration>\n{rows}</configuration>\n')
        (folder / "log4j.properties").write_text(LOG4J)
        (folder / "hosts").write_text(f"127.0.0.1 localhost {socket.gethostname()}\n")  # Hadoop ends where its host's name does not resolve


def bean(address: str, name: str) -> dict[str, Any]:
    """What a daemon says about itself; empty where it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{address}/jmx?qry={name}", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)["beans"][0]
    except (OSError, ValueError, LookupError):
        return {}
    return found


def free_port() -> int:
    for _ in range(200):
        port = random.SystemRandom().randint(LOWEST_PORT, HIGHEST_PORT)
        if is_free(port):
            return port
    raise Failed(f"no free port between {LOWEST_PORT} and {HIGHEST_PORT}")


def is_free(port: int) -> bool:
    """Nobody listens on it; connections that were closed a moment ago do not count."""
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def one_at_a_time(run: Path) -> Iterator[None]:
    run.mkdir(parents=True, exist_ok=True)
    with (run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/hdfs", description="A real HDFS on this machine.")
    parser.add_argument("--run", type=Path, default=CACHE / "run", metavar="DIR", help="folder of the cluster (default: .cache/hdfs/run)")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("up", help="start what does not run; the last line is the cluster's URL")
    up.add_argument("--datanodes", type=int, metavar="N", help="default: as many as before, 3 at first")
    down = verbs.add_parser("down", help="stop it; what was stored stays")
    down.add_argument("--wipe", action="store_true", help="delete what was stored too")
    verbs.add_parser("status", help="exit 0 while all of it is up")
    for verb, help in (("stop", "SIGTERM"), ("kill", "SIGKILL"), ("pause", "SIGSTOP: it hangs"), ("start", "start it, or let it go on")):
        one = verbs.add_parser(f"{verb}-datanode", help=f"one DataNode: {help}")
        one.add_argument("number", type=int)
        verbs.add_parser(f"{verb}-namenode", help=f"the NameNode: {help}")
    verbs.add_parser("restart-namenode", help="stop it, start it, wait until it is ready")
    for verb, help in (("enter", "the NameNode takes no changes any more"), ("leave", "it takes them again")):
        verbs.add_parser(f"{verb}-safemode", help=help)
    asked = parser.parse_args(arguments)
    if asked.verb == "up" and asked.datanodes is not None and asked.datanodes < 1:
        parser.error("--datanodes: one at least")
    run = asked.run.absolute()
    try:
        if asked.verb == "status":
            return status(Cluster(run))
        with one_at_a_time(run):
            do(asked, Cluster(run))
    except Failed as error:
        print(f"scripts/hdfs: {error}", file=sys.stderr)
        return 1
    return 0


def do(asked: argparse.Namespace, cluster: Cluster) -> None:
    verb, _, what = asked.verb.partition("-")
    if asked.verb == "up":
        cluster.up(asked.datanodes)
        print(f"webhdfs://{cluster.url}")
    elif asked.verb == "down":
        cluster.down()
        if asked.wipe:
            shutil.rmtree(cluster.run)
    elif asked.verb == "restart-namenode":
        cluster.namenode.stop()
        cluster.start_namenode()
        cluster.wait(sum(1 for daemon in cluster.datanodes().values() if daemon.pid()))
    elif what == "safemode":
        cluster.admin("-safemode", verb)
    elif verb == "start":
        if what == "namenode":
            cluster.start_namenode()
        else:
            cluster.start_datanode(asked.number)
    else:
        daemon = cluster.namenode if what == "namenode" else cluster.datanode(asked.number)
        if verb == "pause":
            daemon.pause()
        else:
            daemon.stop(signal.SIGKILL if verb == "kill" else signal.SIGTERM)


def status(cluster: Cluster) -> int:
    up = cluster.is_up()
    for daemon in (cluster.namenode, *cluster.datanodes().values()):
        print(f"{daemon.name}: {'process ' + str(daemon.pid()) if daemon.pid() else 'stopped'}")
    print(f"webhdfs://{cluster.url}" if up else "not up")
    return 0 if up else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
