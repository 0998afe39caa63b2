"""What the NameNode holds, by its own word."""

import json
import subprocess
import time
import urllib.request
from typing import NamedTuple

from scripts.bench.common import Missing, needs
from scripts.hdfs_cluster import Cluster, Daemon
from tests.hdfs import Hdfs

STEADY_BYTES, STEADY_TRIES, STEADY_SECONDS = 65_536, 15, 2.0


class Held(NamedTuple):
    """Files, folders and blocks together; bytes of live heap."""

    objects: int
    heap_bytes: int

    def more_than(self, before: "Held") -> "Held":
        return Held(self.objects - before.objects, self.heap_bytes - before.heap_bytes)


def objects_of(hdfs: Hdfs) -> int:
    """As they are now; the bean FSNamesystem says the same some seconds late."""
    name = "Hadoop:service=NameNode,name=FSNamesystemState"
    with urllib.request.urlopen(f"http://{hdfs.address}/jmx?qry={name}", timeout=30) as answer:
        state = json.load(answer)["beans"][0]
    return int(state["FilesTotal"]) + int(state["BlocksTotal"])


def held_by(hdfs: Hdfs) -> Held:
    """Once it has written its image and was started from it.

    For ten minutes a NameNode remembers each request that changed something, and reads that back from its edits: hundreds of bytes a file.

    Raises
    ------
    Missing
        Its heap does not come to rest.
    """
    cluster = Cluster(hdfs.run)
    cluster.admin("-safemode", "enter")
    cluster.admin("-saveNamespace")
    hdfs.command("restart-namenode")
    before = 0
    for _ in range(STEADY_TRIES):  # DataNodes still report their blocks.
        heap = _live_heap(hdfs)
        if abs(heap - before) <= STEADY_BYTES:
            return Held(objects_of(hdfs), heap)
        before = heap
        time.sleep(STEADY_SECONDS)
    raise Missing(f"the NameNode's heap does not come to rest: {before:,} bytes")


def _live_heap(hdfs: Hdfs) -> int:
    """Bytes of what is reachable: the histogram collects all garbage first and counts before anything new is made."""
    command = [needs("jcmd", "default-jdk-headless"), str(Daemon(hdfs.run, "namenode").pid()), "GC.class_histogram"]
    total, _, heap = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()[-1].split()
    assert total == "Total", "the last line of the histogram"
    return int(heap)
