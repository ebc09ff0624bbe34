"""What the one foundation does besides retrieval and ranking, as the paper claims it: ``make bench-tasks``.

Parts, each of which can be run alone (``--part``):

- categories: tuning methods at full depth, the category of an item from its title (``benchmarks.categories``);
- content: whose search query it is that is written for a user (``benchmarks.content``);
- explanation: whether the evidence of a reason is what moved the scores (``benchmarks.explanation``);
- conversation: whether needs that are stated in messages are met (``benchmarks.conversation``);
- replies: what the tuned task ``reply`` writes beside what people wrote (``benchmarks.replies``).

``QUICK=1`` takes minutes and writes to ``runs/bench``; the full form writes to ``benchmarks/results``.
"""

from __future__ import annotations

from benchmarks import parts

TITLE = "The paper's tasks"
NAMES = ("categories", "content", "explanation", "conversation", "replies")
PARTS: dict[str, parts.Measure] = {name: parts.module(name) for name in NAMES}

if __name__ == "__main__":
    parts.run("tasks", TITLE, PARTS, demo=True)
