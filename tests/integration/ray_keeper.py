"""Keeps a Ray cluster of two nodes for the tests while its standard input is open.

Says `ADDRESS` once, then answers lines: `kill ID` ends a node as a power cut would, `add` brings
another. Ray is kept out of the tests' process: it starts threads and leaves sockets open.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

NODE = {"num_cpus": 4, "num_gpus": 1, "object_store_memory": 80 * 2**20}
HEAD = NODE | {"num_cpus": 0, "num_gpus": 0, "include_dashboard": False}

SOON = {  # a lost node is noticed in seconds, not in half a minute
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
}


def main() -> None:
    """Start the cluster and do as told."""
    folder = Path(sys.argv[1])
    (folder / "ray").mkdir()
    os.environ |= SOON | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(folder)}
    tempfile.tempdir = str(folder)
    said, sys.stdout = sys.stdout, sys.stderr
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    nodes = {node.node_id: node for node in (cluster.add_node(**NODE) for _ in range(2))}
    cluster.wait_for_nodes(timeout=60)
    print(cluster.address, file=said, flush=True)
    for line in sys.stdin:
        word, _, name = line.strip().partition(" ")
        if word == "kill":
            kill(cluster, nodes.pop(name))
        else:
            node = cluster.add_node(**NODE)
            nodes[node.node_id] = node
        print("ok", file=said, flush=True)
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def kill(cluster: Any, node: Any) -> None:
    """End a node's processes without a word, all at once."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in [raylet, *raylet.children(recursive=True)]:
        process.send_signal(signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)


if __name__ == "__main__":
    main()
