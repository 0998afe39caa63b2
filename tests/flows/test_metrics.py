"""What the DIMSE workers do shows up in `/metrics`, whichever web worker answers."""

import re
import time
import urllib.request
from collections.abc import Callable

from tests.dimse.peer import CT, EXPLICIT, VERIFICATION, Peer, c_store, c_store_rq, p_data, pdv
from tests.kit import Node, data_set_bytes, make_series


def counts(node: Node) -> dict[str, dict[str, float]]:
    """Values of `/metrics` that come from DIMSE workers: by name, by worker."""
    with urllib.request.urlopen(f"{node.http_url}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, dict[str, float]] = {}
    for name, worker, value in re.findall(r'^dicom_archive_dimse_(\w+)\{worker="([\w-]+)"\} ([0-9.e+]+)$', text, re.MULTILINE):
        found.setdefault(name, {})[worker] = float(value)
    return found


def totals(node: Node) -> dict[str, float]:
    return {name: sum(values.values()) for name, values in counts(node).items()}


def test_a_c_store_shows_up_in_the_metrics(start_node: Callable[..., Node]) -> None:
    node = start_node(settings={"DICOM_ARCHIVE_DIMSE_WORKERS": "2"})
    (sent,) = make_series(1)
    data_set = data_set_bytes(sent)
    before = counts(node)
    assert before["objects_stored_total"] == {"dimse-0": 0, "dimse-1": 0}, "every worker is there from the start"
    with Peer(node.dimse_port) as peer:
        peer.associate(contexts=((1, VERIFICATION, ["1.2.840.10008.1.2"]), (3, CT, [EXPLICIT])))
        peer.echo()
        peer.send(c_store(data_set, str(sent.SOPInstanceUID)))
        assert peer.status() == 0
        peer.send(p_data(pdv(3, 3, c_store_rq("1.2.3"))), p_data(pdv(3, 2, data_set)))
        assert peer.status() == 0xA900
        deadline = time.monotonic() + 10
        while totals(node)["objects_refused_total"] != 1:
            assert time.monotonic() < deadline, totals(node)
            time.sleep(0.1)
        assert totals(node)["associations_open"] == 1
        peer.release()
    wanted = {
        "connections_total": 1.0,
        "connections_dropped_total": 0.0,
        "associations_open": 0.0,
        "associations_accepted_total": 1.0,
        "associations_rejected_total": 0.0,
        "associations_released_total": 1.0,
        "associations_aborted_total": 0.0,
        "echoes_total": 1.0,
        "objects_stored_total": 1.0,
        "objects_refused_total": 1.0,
        "finds_total": 0.0,
        "finds_failed_total": 0.0,
        "find_results_total": 0.0,
        "moves_total": 0.0,
        "gets_total": 0.0,
        "objects_sent_total": 0.0,
        "commitments_total": 0.0,
        "commitments_refused_total": 0.0,
        "data_set_bytes_total": 2.0 * len(data_set),
    }
    deadline = time.monotonic() + 10
    while totals(node) != wanted:
        assert time.monotonic() < deadline, totals(node)
        time.sleep(0.1)
    node.stop()
    node.settings["DICOM_ARCHIVE_DIMSE_WORKERS"] = "1"
    node.start()
    assert counts(node)["objects_stored_total"] == {"dimse-0": 0}, "counts begin anew, and a worker that is gone is forgotten"
