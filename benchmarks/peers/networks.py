"""The neural peers in torch, short: DeepFM, DIN and SASRec, and the loops that train them.

They follow their papers, not a library: RecTools, which has SASRec, asks for numpy below 2, and we for 2 and above.
Number 0 is padding; users, items and tags count from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from m6rec.readouts.scoring import pair_loss

Ints = NDArray[np.int64]
Network = Callable[..., Tensor]
AT_ONCE = 4096
"""Questions answered in one call."""


class Items(nn.Module):
    """An item's vector: its own and the mean of those of its tags, such as genres and words of the title."""

    def __init__(self, num_items: int, tag_IT: Tensor, width: int) -> None:
        super().__init__()
        self.own = _embedding(num_items, width)
        self.tags = _embedding(int(tag_IT.max()), width)
        self.register_buffer("tag_IT", tag_IT)

    def forward(self, item: Tensor) -> Tensor:
        """From numbers of any shape to vectors."""
        tag = self.tag_IT[item]
        return self.own(item) + self.tags(tag).sum(-2) / (tag > 0).sum(-1, keepdim=True).clamp(min=1)


class Factorisation(nn.Module):
    """Logistic matrix factorisation: biases, and the product of user and item; tags have no part in it."""

    def __init__(self, num_users: int, num_items: int, width: int) -> None:
        super().__init__()
        self.users, self.items = _embedding(num_users, width), _embedding(num_items, width)
        self.user_bias, self.item_bias = _embedding(num_users, 1), _embedding(num_items, 1)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, user_B: Tensor, item_B: Tensor, history_BL: Tensor) -> Tensor:
        """Logits [B]; the history is not looked at."""
        product_B = (self.users(user_B) * self.items(item_B)).sum(-1)
        return product_B + self.user_bias(user_B)[:, 0] + self.item_bias(item_B)[:, 0] + self.bias


class DeepFM(nn.Module):
    """Factorisation machine and perceptron over the same vectors (Guo et al., IJCAI 2017): user, item, tags."""

    def __init__(self, num_users: int, num_items: int, tag_IT: Tensor, width: int, dropout: float) -> None:
        super().__init__()
        sizes = (num_users, num_items, int(tag_IT.max()))
        self.fields = nn.ModuleList(_embedding(size, width) for size in sizes)
        self.weights = nn.ModuleList(_embedding(size, 1) for size in sizes)
        self.bias = nn.Parameter(torch.zeros(()))
        self.deep = _perceptron(3 * width, dropout)
        self.register_buffer("tag_IT", tag_IT)

    def forward(self, user_B: Tensor, item_B: Tensor, history_BL: Tensor) -> Tensor:
        """Logits [B]; the history is not looked at."""
        field_BFD, first_BF1 = (self._fields(tables, user_B, item_B) for tables in (self.fields, self.weights))
        pairs_B = (field_BFD.sum(1).square() - field_BFD.square().sum(1)).sum(-1) / 2
        return self.bias + first_BF1.sum((1, 2)) + pairs_B + self.deep(field_BFD.flatten(1))[:, 0]

    def _fields(self, tables: nn.ModuleList, user_B: Tensor, item_B: Tensor) -> Tensor:
        tag_BT = self.tag_IT[item_B]
        mean_BD = tables[2](tag_BT).sum(1) / (tag_BT > 0).sum(1, keepdim=True).clamp(min=1)
        return torch.stack([tables[0](user_B), tables[1](item_B), mean_BD], 1)


class DIN(nn.Module):
    """Deep interest network (Zhou et al., KDD 2018): what was liked before, weighed by the candidate."""

    def __init__(self, num_users: int, num_items: int, tag_IT: Tensor, width: int, dropout: float) -> None:
        super().__init__()
        self.users, self.items = _embedding(num_users, width), Items(num_items, tag_IT, width)
        self.attention = nn.Sequential(nn.Linear(4 * width, 36), nn.Sigmoid(), nn.Linear(36, 1))
        self.deep = _perceptron(4 * width, dropout)

    def forward(self, user_B: Tensor, item_B: Tensor, history_BL: Tensor) -> Tensor:
        """Logits [B]."""
        item_BD, liked_BLD = self.items(item_B), self.items(history_BL)
        item_BLD = item_BD[:, None].expand_as(liked_BLD)
        pair = torch.cat([item_BLD, liked_BLD, item_BLD - liked_BLD, item_BLD * liked_BLD], -1)
        weight_BL1 = self.attention(pair) * (history_BL > 0)[..., None]
        interest_BD = (weight_BL1 * liked_BLD).sum(1)
        return self.deep(torch.cat([self.users(user_B), item_BD, interest_BD, item_BD * interest_BD], -1))[:, 0]


class SASRec(nn.Module):
    """Self-attentive sequential recommendation (Kang & McAuley, ICDM 2018), with layer norms before the blocks.

    Positions count back from the end of what is read, so that batches may be as long as their longest sequence.
    """

    def __init__(self, num_items: int, width: int, num_blocks: int, dropout: float, length: int) -> None:
        super().__init__()
        self.items = _embedding(num_items, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(num_blocks))
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        self.item_bias = _embedding(num_items, 1)

    def states(self, history_BL: Tensor) -> Tensor:
        """What is known after each item [B, L, D]; the latest is the last."""
        length = history_BL.shape[1]
        hidden_BLD = self.dropout(self.items(history_BL) + self.places[-length:])
        causal_LL = torch.ones(length, length, dtype=torch.bool).tril()
        itself_LL = torch.eye(length, dtype=torch.bool)  # so that padding has something to look at
        mask_B1LL = ((history_BL > 0)[:, None, None] & causal_LL) | itself_LL
        for block in self.blocks:
            hidden_BLD = block(hidden_BLD, mask_B1LL)
        states_BLD: Tensor = self.norm(hidden_BLD)
        return states_BLD

    def forward(self, user_B: Tensor, item_B: Tensor, history_BL: Tensor) -> Tensor:
        """Logits [B] of a candidate after a history; the user is known by it alone."""
        state_BD = self.states(history_BL)[:, -1] * (history_BL[:, -1:] > 0)
        return (state_BD * self.items(item_B)).sum(-1) + self.item_bias(item_B)[:, 0]


class _Block(nn.Module):
    """One head of attention and a network as wide as its input."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.project, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.network = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_BLD: Tensor, mask_B1LL: Tensor) -> Tensor:
        query, key, value = (part[:, None] for part in self.project(self.norm(hidden_BLD)).chunk(3, -1))
        read_BLD = F.scaled_dot_product_attention(query, key, value, mask_B1LL)[:, 0]
        hidden_BLD = hidden_BLD + self.dropout(self.out(read_BLD))
        return hidden_BLD + self.dropout(self.network(hidden_BLD))


class Perceptron(nn.Module):
    """A perceptron on numbers."""

    def __init__(self, num_features: int, width: int, dropout: float) -> None:
        super().__init__()
        self.deep = _perceptron(num_features, dropout, (width, width))

    def forward(self, feature_BN: Tensor) -> Tensor:
        """Logits [B]."""
        return self.deep(feature_BN)[:, 0]


def learn(
    network: nn.Module,
    inputs: Sequence[Tensor],
    label_N: Tensor,
    *,
    rate: float,
    decay: float,
    batch: int,
    seed: int,
    user_N: Tensor | None = None,
    pairwise: float = 0.0,
) -> Iterator[None]:
    """Trains a network on labels of 0 and 1 and yields after each pass, without end.

    Given the users, a batch is as many whole users as make ``batch`` questions in the mean, and ``pairwise`` is the
    share of the loss of their pairs, as in ours (``m6rec.readouts.scoring.pair_loss``).
    """
    optimiser = torch.optim.Adam(network.parameters(), lr=rate, weight_decay=decay)
    generator = torch.Generator().manual_seed(seed)
    groups = () if user_N is None else user_N.argsort(stable=True).split(user_N.unique(return_counts=True)[1].tolist())
    size = round(batch * len(groups) / len(label_N)) if groups else batch
    while True:
        network.train()
        for drawn in torch.randperm(len(groups) or len(label_N), generator=generator).split(max(1, size)):
            chosen = torch.cat([groups[number] for number in drawn.tolist()]) if groups else drawn
            logit_B = network(*(each[chosen] for each in inputs))
            loss = F.binary_cross_entropy_with_logits(logit_B, label_N[chosen])
            if user_N is not None and pairwise:
                user_B = user_N[chosen].unique(return_inverse=True)[1]
                loss = loss.lerp(pair_loss(logit_B, label_N[chosen] > 0, user_B), pairwise)
            _step(optimiser, loss)
        network.eval()
        yield


@torch.inference_mode()
def answers(network: nn.Module, inputs: Sequence[Tensor]) -> NDArray[np.float64]:
    """Probabilities [N]."""
    logits = [network(*chunk) for chunk in zip(*(each.split(AT_ONCE) for each in inputs), strict=True)]
    return torch.cat(logits).double().sigmoid().numpy()


def learn_next(
    network: SASRec, sequences: Sequence[Ints], *, length: int, rate: float, num_negatives: int, batch: int, seed: int
) -> Iterator[None]:
    """Trains SASRec to tell each next item from drawn ones by a softmax, and yields after each pass, without end.

    The negatives are drawn evenly from all items, the same for a whole batch. A long sequence is read in pieces.

    Args:
        network: The network.
        sequences: Numbers of items from 1, oldest first.
        length: The most items of a piece.
        rate: Learning rate.
        num_negatives: How many items are drawn for a batch.
        batch: Sequences in it.
        seed: Of the order and the negatives.
    """
    ends = [(items, end) for items in sequences for end in range(len(items), 1, -length)]
    pieces = [items[max(0, end - length - 1) : end] for items, end in ends]
    size_N = np.array([len(piece) for piece in pieces])
    num_items = len(network.items.weight) - 1
    optimiser = torch.optim.Adam(network.parameters(), lr=rate, fused=True)
    rng = np.random.default_rng(seed)
    while True:
        network.train()
        order = np.lexsort((rng.random(len(pieces)), size_N))  # a batch is of one length, or nearly
        starts = np.arange(0, len(order), batch)
        for start in rng.permutation(starts):
            chosen = order[start : start + batch]
            piece_BL = torch.from_numpy(padded([pieces[number] for number in chosen], int(size_N[chosen].max())))
            before_BL, after_BL = piece_BL[:, :-1], piece_BL[:, 1:]
            asked_BL = before_BL > 0
            state_ND, target_N = network.states(before_BL)[asked_BL], after_BL[asked_BL]
            drawn_S = torch.from_numpy(rng.integers(1, num_items + 1, num_negatives))
            right_N = (state_ND * network.items(target_N)).sum(-1)
            wrong_NS = (state_ND @ network.items(drawn_S).T).masked_fill(target_N[:, None] == drawn_S, -torch.inf)
            logit_NS = torch.cat([right_N[:, None], wrong_NS], 1)
            _step(optimiser, F.cross_entropy(logit_NS, torch.zeros(len(logit_NS), dtype=torch.long)))
        network.eval()
        yield


@torch.inference_mode()
def next_scores(network: SASRec, histories: Sequence[Ints], length: int) -> NDArray[np.float32]:
    """Scores of all items [B, I] after each history of numbers from 1; nothing is known after an empty one."""
    history_BL = torch.from_numpy(padded(histories, length))
    longest = int((history_BL > 0).sum(1).max().clamp(min=1))
    history_BL = history_BL[:, -longest:]
    state_BD = network.states(history_BL)[:, -1] * (history_BL[:, -1:] > 0)
    scores_BI: NDArray[np.float32] = (state_BD @ network.items.weight[1:].T).numpy()
    return scores_BI


def padded(histories: Sequence[Ints], length: int) -> Ints:
    """The latest items of each history at the end of a row [B, length], 0 before them.

    >>> padded([np.array([5, 6, 7]), np.array([8])], 2)
    array([[6, 7],
           [0, 8]])
    """
    table = np.zeros((len(histories), length), np.int64)
    for row, history in zip(table, histories, strict=True):
        latest = history[-length:]
        row[length - len(latest) :] = latest
    return table


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _embedding(number: int, width: int) -> nn.Embedding:
    """Vectors of 1 … ``number``; they start near 0, so that what was never trained says little, and row 0 stays it."""
    table = nn.Embedding(number + 1, width, padding_idx=0)
    nn.init.normal_(table.weight, std=0.02)
    with torch.no_grad():
        table.weight[0] = 0
    return table


def _perceptron(width: int, dropout: float, hidden: Sequence[int] = (128, 64)) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, 1))
