"""What a service of a given size takes: bytes, cache hits, arithmetic, machines.

Counts follow from the load and the foundation's shape; seconds and overheads are rates that were measured
(``scale.measuring``), at one size of one machine. What lies far beyond that size is an extrapolation, and says so.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from m6rec.config import Count, NonNegative, Positive, Range, Share, validate
from m6rec.errors import ConfigError
from m6rec.features.layout import LATEST
from m6rec.features.store import MOST_PAIRS

DAY_S, YEAR_H = 86_400, 8_766
FACTORS, WEIGHT_BYTES = 128, 8
"""Of the sources of a blend: factors of an item, and bytes of a weight between two."""
PAIR_BYTES = 28
"""Of a pair of items in the table of features."""
_RANKS = 4_000


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What counts of a foundation and of how it is tuned.

    Attributes:
        width: Of a hidden state.
        ffn_width: Of the feed-forward half.
        num_heads: Query heads.
        num_kv_heads: Key heads.
        head_width: Numbers of a head.
        num_layers: Of the whole model.
        upper_layers: Those that run online.
        state_layers: Those below the states that retrieval reads.
    """

    width: int
    ffn_width: int
    num_heads: int
    num_kv_heads: int
    head_width: int
    num_layers: int
    upper_layers: int
    state_layers: int

    def flop(self, layers: int, context: float = 0) -> float:
        """Of one token in so many layers, which looks at so many others: two for each weight and product."""
        heads, kv_heads = self.num_heads * self.head_width, self.num_kv_heads * self.head_width
        weights = self.width * (2 * heads + 2 * kv_heads + 3 * self.ffn_width)
        return layers * (2 * weights + 4 * heads * context)

    @property
    def kv_bytes(self) -> int:
        """Keys and values of a kept token in 16 bits."""
        return 2 * 2 * self.upper_layers * self.num_kv_heads * self.head_width


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What a load is taken to be like.

    Attributes:
        item_tokens: Tokens of an item's text.
        weights: Other items that a source knows to go with one, for each of two sources.
        churn: Share of the catalogue that is new or reworded in a day.
        user_exponent: Of the Zipf law by which users ask: 0 for all alike.
        item_exponent: Likewise, by which items occur in histories and among candidates.
    """

    item_tokens: NonNegative = 20.0
    weights: NonNegative = 100.0
    churn: Share = 0.01
    user_exponent: NonNegative = 0.8
    item_exponent: NonNegative = 1.0

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is to be served.

    Attributes:
        users: Who have a history.
        items: In the catalogue.
        qps: Recommendations a second at the peak.
        history: Events of a user on average.
        candidates: Items that are ranked for one recommendation.
        assumed: What it is taken to be like.
    """

    users: float
    items: float
    qps: float
    history: float
    candidates: int = 100
    assumed: Assumptions = Assumptions()

    def __post_init__(self) -> None:
        for name in ("users", "items", "qps", "history", "candidates"):
            value, least = getattr(self, name), 1 if name in ("users", "items") else 0
            if not (math.isfinite(value) and value >= least):
                raise ConfigError(f"{name} is {value}; it must be a number from {least}")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine, and what is known of its price.

    Attributes:
        cores: Of its processor.
        memory_gib: GiB that states, histories and vectors may take.
        utilisation: Share of the cores that is planned for; above it, waiting grows fast.
        price_per_hour: In any currency; None where it isn't given.
        watts: At this utilisation; None likewise.
        grams_per_kwh: Of CO₂; None likewise.
    """

    cores: Count = 32
    memory_gib: Positive = 128.0
    utilisation: Annotated[float, Range(0, 1, above=True)] = 0.5
    price_per_hour: NonNegative | None = None
    watts: NonNegative | None = None
    grams_per_kwh: NonNegative | None = None

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What was measured on one core; see ``measuring``.

    Attributes:
        read_flop_per_s: Of the lower layers, for texts in batches.
        rank_flop_per_s: Of the upper layers, for the candidates of one request.
        request_s: Of a request besides what follows.
        event_s: For each event of a history that is read.
        retrieve_s: Of retrieval for a user besides what follows.
        scan_s: For each item's vector that is looked at.
        source_s: For each item that sources score for one user.
        batch_s: For each item and user of a job over all users.
        batch_user_s: For each user of such a job besides.
        vector_bytes: An item in the index.
        item_bytes: An item besides: its texts and features.
        user_bytes: A user in memory.
        event_bytes: An event in memory, besides pairs of items.
        journal_bytes: An event on disk.
        state_bytes: A cached state on disk besides its numbers.
        measured: On what, in words.
    """

    read_flop_per_s: float
    rank_flop_per_s: float
    request_s: float
    event_s: float
    retrieve_s: float
    scan_s: float
    source_s: float
    batch_s: float
    batch_user_s: float
    vector_bytes: float
    item_bytes: float
    user_bytes: float
    event_bytes: float
    journal_bytes: float
    state_bytes: float
    measured: str = ""

    @classmethod
    def read(cls, file: Path | None) -> Rates:
        """From the file that ``m6rec plan --measure`` wrote; ours for None. Raises ConfigError where it holds none."""
        try:
            found = json.loads((file or Path(__file__).with_name("rates.json")).read_text())
            values: dict[str, Any] = {one.name: float(found[one.name]) for one in fields(cls) if one.name != "measured"}
            return cls(**values, measured=str(found["measured"]))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{file} holds no rates ({error!r}); write them by `m6rec plan --measure FILE`"
            ) from error


def retrieval_s(items: float, rates: Rates) -> float:
    """Of one core, for one user among so many items, each of which is looked at, and scored by the sources."""
    return rates.retrieve_s + items * (rates.scan_s + rates.source_s)


def rank_s(history: float, candidates: float, shape: Shape, rates: Rates, *, is_known: bool = True) -> float:
    """Of one core, for the candidates of one user, whose keys and values are in memory or not."""
    flop = candidates * shape.flop(shape.upper_layers, history)
    if not is_known:
        flop += history * shape.flop(shape.upper_layers, history / 2)
    return rates.request_s + rates.event_s * history + flop / rates.rank_flop_per_s


def memory_bytes(load: Load, rates: Rates) -> dict[str, float]:
    """Of what a service holds in memory, by part."""
    return {
        "item vectors": load.items * rates.vector_bytes,
        "items": load.items * rates.item_bytes,
        "sources": load.items * (4 * FACTORS + 2 * WEIGHT_BYTES * load.assumed.weights),
        "histories": load.users * (rates.user_bytes + load.history * rates.event_bytes),
        "pairs of items, at most": _pair_bytes(load.users * load.history * min(load.history / 2, LATEST)),
    }


def _pair_bytes(pairs: float) -> float:
    """Of the table of pairs, which doubles when it is half full."""
    return PAIR_BYTES * min(float(MOST_PAIRS), 2.0 ** math.ceil(math.log2(max(2 * pairs, 2))))


def cache_hit_rate(num: float, exponent: float, capacity: float) -> float:
    """Of a least-recently-used cache of so many of ``num`` things that are asked for by a Zipf law.

    By Che's approximation (Che, Tung & Wang, IEEE JSAC 2002), which is close for any large cache: a thing is there if
    it was asked for within a time T, the same for all, in which ``capacity`` different things are asked for.
    """
    if capacity >= num:
        return 1.0
    if capacity < 1:
        return 0.0
    edge_R = np.unique(np.floor(np.geomspace(1, num + 1, _RANKS)))
    size_R, rank_R = np.diff(edge_R), np.sqrt(edge_R[:-1] * (edge_R[1:] - 1))
    share_R = rank_R**-exponent
    share_R /= share_R @ size_R
    low, high = 0.0, 1.0
    while size_R @ -np.expm1(-share_R * high) < capacity:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        if size_R @ -np.expm1(-share_R * middle) < capacity:
            low = middle
        else:
            high = middle
    return float((size_R * share_R) @ -np.expm1(-share_R * high))


def service_plan(load: Load, shape: Shape, rates: Rates, machine: Machine) -> dict[str, Any]:
    """The plan, in plain values: bytes, hit rates, FLOP, seconds of a core, machines, and what limits them.

    Raises:
        ConfigError: Grams of CO₂ per kWh are given without watts.
    """
    if machine.grams_per_kwh is not None and machine.watts is None:
        raise ConfigError("grams-per-kwh without watts; give both")
    assumed = load.assumed
    memory, per_machine = memory_bytes(load, rates), machine.memory_gib * 2**30
    kv_of_user = load.history * shape.kv_bytes
    resident = sum(memory.values())

    def hits_of(machines: float) -> float:
        return cache_hit_rate(
            load.users, assumed.user_exponent, max(machines * per_machine - resident, 0) / max(kv_of_user, 1)
        )

    def request_s(hits: float) -> float:
        ranked = {known: rank_s(load.history, load.candidates, shape, rates, is_known=known) for known in (True, False)}
        return retrieval_s(load.items, rates) + hits * ranked[True] + (1 - hits) * ranked[False]

    tokens = assumed.item_tokens
    read_flop = tokens * shape.flop(shape.num_layers - shape.upper_layers, tokens / 2)
    read_flop += tokens * shape.flop(shape.state_layers, tokens / 2)
    churn_cores = assumed.churn * load.items / DAY_S * read_flop / rates.read_flop_per_s
    for_memory = max(1, math.ceil(resident / per_machine))
    machines = for_memory
    for _ in range(20):  # more machines keep more users' keys and values, so that they need fewer
        hits = hits_of(machines)
        cores = (load.qps * request_s(hits) + churn_cores) / machine.utilisation
        needed = max(for_memory, math.ceil(cores / machine.cores))
        if needed == machines:
            break
        machines = needed
    parts = {
        "retrieval: of any size": rates.retrieve_s,
        "retrieval: scan of vectors": load.items * rates.scan_s,
        "retrieval: sources": load.items * rates.source_s,
        "ranking, user in memory": rank_s(load.history, load.candidates, shape, rates),
        "ranking, user not in memory": rank_s(load.history, load.candidates, shape, rates, is_known=False),
    }
    result: dict[str, Any] = {
        "bytes in memory": {**memory, "all": resident},
        "bytes on disk": {
            "states": load.items * (2 * 2 * shape.width + 2 * rates.state_bytes),
            "journal": load.users * load.history * rates.journal_bytes,
        },
        "hit rates": {
            "users' keys and values in memory": hits,
            "item states, if a machine keeps 1 GiB of them": cache_hit_rate(
                load.items, assumed.item_exponent, 2**30 / (2 * shape.width + rates.state_bytes)
            )
            * (1 - assumed.churn),
        },
        "flop": {
            "a request, user in memory": load.candidates * shape.flop(shape.upper_layers, load.history),
            "the history of a user not in memory": load.history * shape.flop(shape.upper_layers, load.history / 2),
            "the texts of an item": read_flop,
        },
        "seconds of a core": {**parts, "a request": request_s(hits)},
        "core hours": {
            "to read the catalogue": load.items * read_flop / rates.read_flop_per_s / 3_600,
            "to read what changes in a day": churn_cores * 24,
            "recommendations for all users": load.users * (load.items * rates.batch_s + rates.batch_user_s) / 3_600,
        },
        "machines": {"for memory": for_memory, "for requests": math.ceil(cores / machine.cores), "needed": machines},
        "limited by": "memory" if machines == for_memory else max(parts, key=lambda name: parts[name]),
        "measured": rates.measured,
    }
    cost: dict[str, float] = {}
    if machine.price_per_hour is not None:
        cost["price a year"] = machines * machine.price_per_hour * YEAR_H
    if machine.watts is not None:
        cost["kWh a year"] = machines * machine.watts * YEAR_H / 1_000
        if machine.grams_per_kwh is not None:
            cost["kg of CO₂ a year"] = cost["kWh a year"] * machine.grams_per_kwh / 1_000
    return result | ({"cost": cost} if cost else {})
