"""How good the items are that a conversation recommends.

A third of the films that people name in such data have been named in the same conversation before, so that a system
which only repeats looks good (He et al., CIKM 2023). Repeats are therefore left out, and ``naive_repeat`` is that
system, to be printed beside each table.
"""

from collections.abc import Collection, Sequence

from m6rec.errors import ConfigError, DataError


def recall(
    recommended: Sequence[Sequence[str]],
    targets: Sequence[Collection[str]],
    named: Sequence[Collection[str]],
    k: int,
    *,
    count_repeats: bool = False,
) -> float:
    """Recall@k: how many of the items that turns name were recommended before those turns.

    Recall@k = #{target in the first k of its turn's list} / #{targets}, over all targets of all turns

    The turn names Alien, named before, and Heat; the list has Heat in its second place:

    >>> recall([["Alien", "Heat"]], [["Alien", "Heat"]], [["Alien"]], k=1)
    0.0
    >>> recall([["Alien", "Heat"]], [["Alien", "Heat"]], [["Alien"]], k=2)
    1.0
    >>> recall([["Alien", "Heat"]], [["Alien", "Heat"]], [["Alien"]], k=1, count_repeats=True)
    0.5

    Args:
        recommended: The items recommended at each turn, best first.
        targets: The items that the turn names.
        named: The items named in the conversation before the turn.
        k: How many recommended items count. One that was named before takes its place all the same.
        count_repeats: Whether targets named before count too, as in tables of older papers.

    Raises:
        DataError: Lengths differ, or no target is left.
        ConfigError: ``k`` is below 1.
    """
    if k < 1:
        raise ConfigError(f"k is {k}; it must be at least 1")
    if not len(recommended) == len(targets) == len(named):
        raise DataError(
            f"there are {len(recommended)} lists, {len(targets)} targets and {len(named)} pasts; give one each a turn"
        )
    hits = [
        target in items[:k]
        for items, wanted, before in zip(recommended, targets, named, strict=True)
        for target in wanted
        if count_repeats or target not in before
    ]
    if not hits:
        raise DataError(f"no item is named for the first time in any of the {len(targets)} turns; give more turns")
    return sum(hits) / len(hits)


def naive_repeat(named: Sequence[Sequence[str]]) -> list[list[str]]:
    """What a system recommends that only repeats: the items named before each turn, the latest first.

    >>> naive_repeat([["Alien", "Heat", "Alien"]])
    [['Alien', 'Heat']]
    """
    return [list(dict.fromkeys(reversed(items))) for items in named]
