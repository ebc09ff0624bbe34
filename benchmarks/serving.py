"""Everything that the service has to show, measured: ``make bench-serving``.

Parts, each of which can be run alone (``--part``) and leaves its results beside those of the others:

- latency: one user, 100 and 1 000 candidates, beside the alternatives on the same weights (``benchmarks.latency``);
- exactness: served scores beside evaluated ones, and states of 8 bits (``benchmarks.exactness``);
- catalogue: from ten thousand items to a million (``benchmarks.catalogue``);
- load: open-loop load below and above capacity (``benchmarks.load``);
- faults: a failing Redis, malformed requests (``benchmarks.faults``; ``benchmarks.durability`` has the rest);
- texts: first token, tokens a second, many streams at once (``benchmarks.texts``);
- gpu: exactness, latency and throughput on a GPU, where torch sees one (``benchmarks.gpu``).

``QUICK=1`` takes minutes and writes to ``runs/bench``; the full form writes to ``benchmarks/results``.
"""

from __future__ import annotations

from benchmarks import parts

TITLE = "The service"
NAMES = ("latency", "exactness", "catalogue", "load", "faults", "texts", "gpu")
PARTS: dict[str, parts.Measure] = {name: parts.module(name) for name in NAMES}

if __name__ == "__main__":
    parts.run("serving", TITLE, PARTS, demo=True)
