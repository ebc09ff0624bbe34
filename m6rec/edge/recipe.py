"""What a small model is made by: every technique of ``edge.shrink`` is a switch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from m6rec.config import Count, Natural, NonNegative, OpenShare, Positive, Range, validate
from m6rec.errors import ConfigError

Kept = Annotated[float, Range(0, 1, above=True)]
"""A share that something is left of."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a small model is made by. Every technique is off at some value of its switch.

    Attributes:
        width: Of the student.
        ffn_width: Of its feed-forward halves.
        num_heads: Of its attention.
        num_layers: How often its blocks are run.
        num_blocks: Sets of weights that these share in turn; ``num_layers`` shares none.
        embed_width: Of its factorised table of tokens; 0 for a table as wide as itself.
        vocab_size: Tokens that are kept, or as many as the domain needs if these are more; 0 keeps all.
        hidden: Weight of the distance from the teacher's states.
        relation: Weight of the distance from the teacher's attention relations. With this and ``hidden`` at 0 nothing
            is distilled from the lower half, and the student learns by the task alone.
        logits: Weight of the cross-entropy with the teacher's scores.
        labels: … with the answers themselves.
        exits: Whether every layer of the student is trained to be the last.
        sparsity: Share of the weights of each matrix, of student and upper layers, that pruning sets to zero.
        upper_neurons: Share of the feed-forward neurons that upper layers keep.
        upper_heads: Share of the attention heads that they keep, in whole groups.
        alone: Whether the task is tuned to questions as a device asks them, without neighbours.
        held_out: Share of the items that the student learns nothing of, by which it is judged.
        epochs: Passes over the texts.
        learning_rate: Of the student.
        tuning_epochs: Passes over the questions, with the tuning, and with upper layers that were pruned; 0 leaves the
            teacher's tuning as it is.
        tuning_learning_rate: Of these.
        seed: Fixes all that is random.
    """

    width: Count = 192
    ffn_width: Count = 512
    num_heads: Count = 3
    num_layers: Count = 3
    num_blocks: Count = 1
    embed_width: Natural = 64
    vocab_size: Natural = 4096
    hidden: NonNegative = 1.0
    relation: NonNegative = 0.1
    logits: NonNegative = 1.0
    labels: NonNegative = 1.0
    exits: bool = True
    sparsity: OpenShare = 0.0
    upper_neurons: Kept = 1.0
    upper_heads: Kept = 1.0
    alone: bool = False
    held_out: OpenShare = 0.1
    epochs: Count = 6
    learning_rate: Positive = 2e-3
    tuning_epochs: Natural = 1
    tuning_learning_rate: Positive = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        validate(self)
        if self.width % (2 * self.num_heads) or self.num_blocks > self.num_layers:
            raise ConfigError(
                f"width {self.width} must be a multiple of twice num_heads {self.num_heads}, "
                f"and num_blocks {self.num_blocks} at most num_layers {self.num_layers}"
            )
        if not self.logits and not self.labels and self.tuning_epochs:
            raise ConfigError("nothing to tune by: give logits or labels, or tuning_epochs=0")
        if not self.distils and not self.tuning_epochs:
            raise ConfigError("nothing to train the student by: give hidden or relation, or tuning_epochs")

    @property
    def distils(self) -> bool:
        """Whether the student learns from the teacher's lower half."""
        return bool(self.hidden or self.relation)
