"""Features of a user with an item, and how an event changes what they are made from: compiled, the same for all uses.

Training walks a whole log with them, serving takes an event or a question at a time. What an event or a question
costs depends on the user's ``LATEST`` behaviours alone, not on how many events, users or items there are.

The table of pairs of items says how two items fare with users who met both. A pair has ``COUNTS`` numbers: how often a
user liked both, liked the one of the lower row alone, the other alone, neither; and the sum of products of their
residuals. It has sets of ``WAYS`` slots, as caches of processors have. Where a set is full, a new pair takes the place
of the one that was counted least: the table is all but exact while it can grow, and then forgets rare pairs first.

Everything compiled is in this one file, and constants come in with the state: numba's cache doesn't notice a change of
another file.
"""

from __future__ import annotations

from math import exp, isnan, log, log1p, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m6rec.compiled import compiled
from m6rec.features.layout import FeatureState

Floats = NDArray[np.float32]
Floats64 = NDArray[np.float64]
Ints = NDArray[np.int64]

KeyTable = NDArray[np.int64]
Counts = NDArray[np.float32]

WAYS = 8
"""Slots of a set; their keys fill a cache line. As ``layout.WAYS``, and here for the compiler."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2⁶⁴ / φ: multiplicative hashing (Knuth, The Art of Computer Programming, vol. 3, section 6.4)."""


@compiled
def walk(
    state: FeatureState,
    user_N: Ints,
    item_N: Ints,
    positive_N: Ints,
    strength_N: NDArray[np.float64],
    time_N: Ints,
    trace_NT: Floats,
    known_Q: Ints,
    user_Q: Ints,
    item_Q: Ints,
    features_QF: Floats,
    n: int,
    q: int,
    most_sets: int,
    imagined: bool,
) -> tuple[int, int]:
    """Takes in events in their order, and answers questions between them.

    Args:
        state: What is known; it must have rows for all users.
        user_N: Rows.
        item_N: Rows; -1 for events without an item that is known.
        positive_N: 1 for the item, 0 against it, -1 for neither.
        strength_N: From 0 to 1.
        time_N: Seconds since 1970.
        trace_NT: Receives ``EVENT_FEATURES``, without the pause.
        known_Q: Of each question, ascending: how many of the events are taken in before it.
        user_Q: Rows; -1 for nobody known.
        item_Q: Rows; -1 for none known.
        features_QF: Receives ``FEATURES``.
        n: The event to go on from.
        q: The question to go on from.
        most_sets: The table of pairs has at most so many sets.
        imagined: Whether the events count for their user alone.

    Returns:
        (n, q) where it stopped, because of no more events and questions, or because the state must grow first.
    """
    while True:
        while q < len(known_Q) and known_Q[q] <= n:
            compute(state, user_Q[q], item_Q[q : q + 1], features_QF[q : q + 1])
            q += 1
        if n == len(user_N) or crowded(state, most_sets):
            return n, q
        if positive_N[n] < 0:
            _view(state, item_N[n], strength_N[n], trace_NT[n])
        else:
            update(state, user_N[n], item_N[n], positive_N[n] == 1, strength_N[n], time_N[n], trace_NT[n], imagined)
        n += 1


@compiled
def crowded(state: FeatureState, most_sets: int) -> bool:
    """Whether the state has to grow before it takes in an event."""
    total = state.total[0]
    latest = state.constants[0].LATEST
    pairs = len(state.keys) < most_sets and total.pairs + latest > state.keys.size // 2
    return pairs or total.behaviours + 2 * latest > len(state.behaviours)


@compiled
def update(
    state: FeatureState, user: int, item: int, liked: bool, strength: float, time: int, trace_T: Floats, imagined: bool
) -> None:
    """Takes in an event that is positive or negative.

    Args:
        state: What is known; not ``crowded``.
        user: Its row.
        item: Its row.
        liked: Whether it is positive.
        strength: From 0 to 1.
        time: Seconds since 1970.
        trace_T: Receives ``EVENT_FEATURES``, without the pause.
        imagined: Whether it counts for the user alone.
    """
    constants, total, of_user, of_item = state.constants[0], state.total[0], state.users[user], state.items[item]
    share = _item_share(state, item)
    value_surprise = strength - _item_value(state, item, strength)
    known = of_user.count + constants.USER_PRIOR
    residual = _in_spreads(total, value_surprise - of_user.value_surprise / known)
    trace_T[0], trace_T[1], trace_T[2] = liked, strength, value_surprise
    trace_T[3] = liked - share - of_user.surprise / known
    trace_T[4], trace_T[5] = share, log1p(of_item.count)

    first = of_user.start + max(0, of_user.size - constants.LATEST)
    end = of_user.start + of_user.size
    if not imagined:
        slot_L = np.empty(constants.LATEST, np.int64)
        _find_all(state, first, end, item, slot_L)
        for at in range(first, end):
            other = state.behaviours[at]
            if other.item != item:
                lower_liked, higher_liked = (liked, other.liked) if item < other.item else (other.liked, liked)
                kind = 2 * (1 - lower_liked) + (1 - higher_liked)
                slot, product = slot_L[at - first], residual * other.residual
                total.pairs += _add(state.keys, state.counts, _key(item, other.item), slot, kind, product)
    place = end
    while place > first and state.behaviours[place - 1].time > time:
        place -= 1
    rate = _like_rate(total)
    of_user.recent = _recent(state, place, end, of_user.recent if of_user.count else rate, liked, True)
    of_user.recent_value_surprise = _recent(state, place, end, of_user.recent_value_surprise, value_surprise, False)
    if place > first or end - first < constants.LATEST:
        _insert(state, user, end - place, time, item, value_surprise, residual, liked)
    of_user.surprise += liked - share
    of_user.values += strength
    of_user.value_surprise += value_surprise
    of_user.likes += liked
    of_user.count += 1
    if imagined:
        return
    _recount(state, of_item.count)
    if not of_item.count:
        of_item.first = total.count
    of_item.count += 1
    of_item.likes += liked
    of_item.values += strength
    total.count += 1
    total.likes += liked
    total.values += strength
    total.num_values += 1
    off = strength - total.mean
    total.mean += off / total.num_values
    total.squares += off * (strength - total.mean)


@compiled
def _recount(state: FeatureState, before: int) -> None:
    """An item that was met ``before`` times is met once more."""
    most = len(state.items_by_count_C) - 1
    if before:
        state.items_by_count_C[min(before, most)] -= 1
    else:
        state.total[0].met += 1
    state.items_by_count_C[min(before + 1, most)] += 1


@compiled
def _view(state: FeatureState, item: int, strength: float, trace_T: Floats) -> None:
    """The traces of an event that is neither positive nor negative, and counts nowhere."""
    trace_T[0], trace_T[1], trace_T[2], trace_T[3] = 0.5, strength, 0, 0
    trace_T[4] = _item_share(state, item)
    trace_T[5] = log1p(state.items[item].count) if item >= 0 else 0.0


@compiled
def _insert(
    state: FeatureState,
    user: int,
    later: int,
    time: int,
    item: int,
    value_surprise: float,
    residual: float,
    liked: bool,
) -> None:
    """Puts a behaviour before the ``later`` ones of a user; room is doubled up to twice the latest, then reused."""
    total, of_user, behaviours = state.total[0], state.users[user], state.behaviours
    latest = state.constants[0].LATEST
    if of_user.size == of_user.room:
        if of_user.room < 2 * latest:
            start, room = total.behaviours, max(4, 2 * of_user.room)
            for at in range(of_user.size):
                behaviours[start + at] = behaviours[of_user.start + at]
            of_user.start, of_user.room = start, room
            total.behaviours += room
        else:
            for at in range(of_user.start, of_user.start + latest):
                behaviours[at] = behaviours[at + of_user.size - latest]
            of_user.size = latest
    place = of_user.start + of_user.size
    for _ in range(later):
        behaviours[place] = behaviours[place - 1]
        place -= 1
    new = behaviours[place]
    new.time, new.item, new.value_surprise, new.residual, new.liked = time, item, value_surprise, residual, liked
    of_user.size += 1


@compiled
def compute(state: FeatureState, user: int, item_I: Ints, features_IF: Floats) -> None:
    """The ``FEATURES`` of a user with each of several items.

    Args:
        state: What is known.
        user: Row; -1 for nobody known.
        item_I: Rows; -1 for none known.
        features_IF: Receives them.
    """
    constants, total, first, end = state.constants[0], state.total[0], 0, 0
    rate = _like_rate(total)
    mean = total.values / total.count if total.count else 0.0
    count, likes, surprise, values, value_surprise, recent, recent_value_surprise = 0, 0, 0.0, 0.0, 0.0, rate, 0.0
    if user >= 0:
        of_user = state.users[user]
        count, likes, surprise, values = of_user.count, of_user.likes, of_user.surprise, of_user.values
        value_surprise, recent_value_surprise = of_user.value_surprise, of_user.recent_value_surprise
        recent = of_user.recent if count else rate
        end = of_user.start + of_user.size
        first = max(of_user.start, end - constants.LATEST)
    known = count + constants.USER_PRIOR
    share, value_surprise = (likes + constants.USER_PRIOR * rate) / known, value_surprise / known
    _sum_categories(state, first, end)
    slot_L, count_L5 = np.empty(constants.LATEST, np.int64), np.empty((constants.LATEST, 5), np.float32)
    number_LM = np.empty((constants.LATEST, len(state.units_M)))
    for at in range(first, end):  # once for all items
        number_LM[at - first] = state.numbers_IM[state.behaviours[at].item]
    for row in range(len(item_I)):
        item, features_F = item_I[row], features_IF[row]
        features_F[0], features_F[1], features_F[2] = share, log1p(count), recent
        features_F[3] = _item_share(state, item)
        features_F[4] = log1p(state.items[item].count) if item >= 0 else 0.0
        features_F[5], features_F[17] = _of_categories(state, item, share, value_surprise)
        _of_neighbours(state, first, end, item, slot_L, count_L5, features_F[6:12])
        features_F[12], features_F[13] = surprise / known, (values + constants.USER_PRIOR * mean) / known
        features_F[14], features_F[15] = _item_value(state, item, 0.0), value_surprise
        features_F[16] = recent_value_surprise
        features_F[18], features_F[19] = _near(state, first, end, item, number_LM, share, value_surprise)
    _forget_categories(state, first, end)


@compiled
def _of_neighbours(
    state: FeatureState, first: int, end: int, item: int, slot_L: Ints, count_L5: Counts, features_6: Floats
) -> None:
    """The ``NEIGHBOURLY`` features: how the item fares with those who agree or disagree on each behaviour.

    Users weigh by what they share: a viewer of the item who shares three likes with the user stands in three pairs of
    items. The user's own events with the item are taken out, so that nobody is their own neighbour.
    """
    of, prior = state.constants[0], _item_share(state, item)
    liking, disliking = of.NEIGHBOUR_PRIOR * prior, of.NEIGHBOUR_PRIOR * (1 - prior)
    expected = (liking + of.HALF) / (disliking + of.HALF)
    own_likes, own_dislikes, own_residual = _own(state, first, end, item)
    likes_3, met_3 = np.zeros(3), np.zeros(3)  # of who shares likes, shares dislikes, disagrees
    odds, trusted, product, squares, together = 0.0, of.ODDS_PRIOR, 0.0, of.SURPRISE_PRIOR, 0.0
    is_met = item >= 0 and state.items[item].count > 0
    if is_met:
        _find_all(state, first, end, item, slot_L)
        for place in range(end - first):  # where there is none any counts do, so that nothing has to be predicted
            slot = max(0, slot_L[place])
            for kind in range(5):
                count_L5[place, kind] = state.counts[slot, kind]
    for at in range(first, end if is_met else first):
        one, slot = state.behaviours[at], slot_L[at - first]
        if slot < 0:
            continue
        counts, lower = count_L5[at - first], item < one.item  # whether the item is the first of the pair
        both, item_alone, other_alone = counts[0], counts[1] if lower else counts[2], counts[2] if lower else counts[1]
        neither, products = counts[3], counts[4]
        if own_likes or own_dislikes:
            my_likes, my_dislikes, my_residual = _own(state, first, end, one.item)
            both = max(0, both - my_likes * own_likes)
            item_alone = max(0, item_alone - my_dislikes * own_likes)
            other_alone = max(0, other_alone - my_likes * own_dislikes)
            neither = max(0, neither - my_dislikes * own_dislikes)
            products -= my_residual * own_residual
        if one.liked:
            agreeing, likes, dislikes, opposed_likes, opposed_dislikes = 0, both, other_alone, item_alone, neither
            if both:
                together += both / sqrt(state.items[item].likes * state.items[one.item].likes + 1)
        else:
            agreeing, likes, dislikes, opposed_likes, opposed_dislikes = 1, item_alone, neither, both, other_alone
        likes_3[agreeing] += likes
        met_3[agreeing] += likes + dislikes
        likes_3[2] += opposed_likes
        met_3[2] += opposed_likes + opposed_dislikes
        if likes + dislikes:
            trust = (likes + dislikes) / (likes + dislikes + of.TRUST_PRIOR)
            trusted += trust
            odds += trust * log((likes + liking + of.HALF) / (dislikes + disliking + of.HALF) / expected)
        # 0.8 is about the variance of a residual, which makes this a correlation shrunk to nought.
        shared = likes + dislikes + opposed_likes + opposed_dislikes
        correlation = products / (shared + of.CORRELATION_PRIOR) / 0.8 * shared / (shared + of.SHARED_PRIOR)
        product += correlation * abs(correlation) * one.residual
        squares += correlation * correlation
    for kind in range(3):
        features_6[kind] = (likes_3[kind] + liking) / (met_3[kind] + of.NEIGHBOUR_PRIOR)
    features_6[3] = odds / trusted
    features_6[4] = product / squares
    features_6[5] = log1p(together)


@compiled
def _find_all(state: FeatureState, first: int, end: int, item: int, slot_L: Ints) -> None:
    """The slots of an item with each of a user's behaviours, -1 where the pair isn't counted or is of one item.

    All are sought before one is looked at, so that the memory is waited for once and not a hundred times.
    """
    for at in range(first, end):
        other = state.behaviours[at].item
        slot_L[at - first] = _find(state.keys, _key(item, other)) if other != item else -1


@compiled
def _own(state: FeatureState, first: int, end: int, item: int) -> tuple[int, int, float]:
    """Of the user's own behaviours with an item: likes, dislikes, the sum of their residuals."""
    likes, dislikes, residual = 0, 0, 0.0
    for at in range(first, end):
        one = state.behaviours[at]
        if one.item == item:
            likes += one.liked
            dislikes += not one.liked
            residual += one.residual
    return likes, dislikes, residual


@compiled
def _sum_categories(state: FeatureState, first: int, end: int) -> None:
    """Sums likes, events and surprises of behaviours by category."""
    for at in range(first, end):
        one = state.behaviours[at]
        of_item = state.items[one.item]
        for place in range(of_item.first_category, of_item.first_category + of_item.num_categories):
            category = state.categories[place]
            state.scratch_3C[0, category] += one.liked
            state.scratch_3C[1, category] += 1
            state.scratch_3C[2, category] += one.value_surprise


@compiled
def _forget_categories(state: FeatureState, first: int, end: int) -> None:
    """Undoes ``_sum_categories``."""
    for at in range(first, end):
        of_item = state.items[state.behaviours[at].item]
        for place in range(of_item.first_category, of_item.first_category + of_item.num_categories):
            for kind in range(3):
                state.scratch_3C[kind, state.categories[place]] = 0


@compiled
def _of_categories(state: FeatureState, item: int, share: float, value_surprise: float) -> tuple[float, float]:
    """(``category_share``, ``category_value_surprise``)."""
    prior = state.constants[0].CATEGORY_PRIOR
    likes, met, surprise = prior * share, prior, prior * value_surprise
    if item >= 0:
        of_item = state.items[item]
        for place in range(of_item.first_category, of_item.first_category + of_item.num_categories):
            category = state.categories[place]
            likes += state.scratch_3C[0, category]
            met += state.scratch_3C[1, category]
            surprise += state.scratch_3C[2, category]
    return likes / met, surprise / met


@compiled
def _near(
    state: FeatureState, first: int, end: int, item: int, number_LM: Floats64, share: float, value_surprise: float
) -> tuple[float, float]:
    """(``near_share``, ``near_value_surprise``) by the numbers of behaviours; an item without one is near to none."""
    prior = state.constants[0].NEAR_PRIOR
    likes, weights, surprise = prior * share, prior, prior * value_surprise
    numbered = False
    for m in range(len(state.units_M)):
        numbered |= item >= 0 and not isnan(state.numbers_IM[item, m])
    for at in range(first, end if numbered else first):
        one = state.behaviours[at]
        apart, shared = 0.0, 0
        for m in range(len(state.units_M)):
            distance = abs(state.numbers_IM[item, m] - number_LM[at - first, m])
            if not isnan(distance) and state.units_M[m] > 0:
                apart += distance / state.units_M[m]
                shared += 1
        if shared:
            weight = exp(-apart / shared)
            likes += weight * one.liked
            weights += weight
            surprise += weight * one.value_surprise
    return likes / weights, surprise / weights


@compiled
def _like_rate(total: Any) -> float:
    return total.likes / total.count if total.count else 0.5


@compiled
def _item_share(state: FeatureState, item: int) -> float:
    rate = _like_rate(state.total[0])
    if item < 0 or not state.items[item].count:
        return rate
    prior = state.constants[0].ITEM_PRIOR
    return (state.items[item].likes + prior * rate) / (state.items[item].count + prior)


@compiled
def _item_value(state: FeatureState, item: int, first: float) -> float:
    """Mean value of an item's events, shrunk towards that of all; ``first`` before there is any."""
    total = state.total[0]
    mean = total.values / total.count if total.count else first
    if item < 0 or not state.items[item].count:
        return mean
    prior = state.constants[0].ITEM_PRIOR
    return (state.items[item].values + prior * mean) / (state.items[item].count + prior)


@compiled
def _in_spreads(total: Any, difference: float) -> float:
    """A difference of values in their standard deviations; 0 while all are the same."""
    return difference / sqrt(total.squares / total.num_values) if total.squares else 0.0


@compiled
def _recent(state: FeatureState, place: int, end: int, before: float, number: float, of_likes: bool) -> float:
    """A mean whose latest numbers weigh most, with a number more, which those from a place on came before."""
    memory, since, weight = state.constants[0].RECENT_MEMORY, 0.0, 1.0
    for at in range(place, end):
        one = state.behaviours[at]
        since = memory * since + (1 - memory) * (one.liked if of_likes else one.value_surprise)
        weight *= memory
    return memory * (before - since) + (1 - memory) * weight * number + since


@compiled
def _key(one: int, other: int) -> int:
    """The key of two different rows, which is never 0."""
    return (min(one, other) << 32) | max(one, other)


@compiled
def _find(keys: KeyTable, key: int) -> int:
    """The slot of a pair; -1 where it isn't counted."""
    return _find_in(keys, _set_of(keys, key), key)


@compiled
def _find_in(keys: KeyTable, at: int, key: int) -> int:
    """The slot of a key in a set, 0 for one that is free; -1 for none."""
    found = -1
    for way in range(WAYS):  # to the end, as where it is found can't be predicted
        found = at * WAYS + way if keys[at, way] == key else found
    return found


@compiled
def _add(keys: KeyTable, counts: Counts, key: int, slot: int, kind: int, product: float) -> int:
    """Counts a user with both items of a pair.

    Args:
        keys: Of the table.
        counts: Of the table.
        key: Of the pair.
        slot: Where the pair was found before the event; -1 where it wasn't.
        kind: Which of the first four ``COUNTS``.
        product: Of the residuals.

    Returns:
        How many slots more are in use, 0 or 1.
    """
    new = 0
    if slot < 0 or keys[slot // WAYS, slot % WAYS] != key:  # another pair of this event may have taken its place
        slot = _find(keys, key)
    if slot < 0:
        slot = _find_in(keys, _set_of(keys, key), 0)
        new = slot >= 0
        if slot < 0:
            slot = _rarest(counts, _set_of(keys, key))
        keys[slot // WAYS, slot % WAYS] = key
        counts[slot] = 0
    counts[slot, kind] += 1
    counts[slot, 4] += product
    return new


@compiled
def grow_pairs(keys: KeyTable, counts: Counts, larger_keys: KeyTable, larger_counts: Counts) -> int:
    """Puts all pairs into a larger empty table; returns how many there are."""
    num = 0
    for at in range(len(keys)):
        for way in range(WAYS):
            key = keys[at, way]
            if key == 0:
                continue
            there = _set_of(larger_keys, key)
            for free in range(WAYS):
                if larger_keys[there, free] == 0:
                    larger_keys[there, free] = key
                    larger_counts[there * WAYS + free] = counts[at * WAYS + way]
                    num += 1
                    break
    return num


@compiled
def _rarest(counts: Counts, at: int) -> int:
    """The slot of a full set whose pair was met least."""
    rarest, least = -1, np.float32(np.inf)
    for slot in range(at * WAYS, (at + 1) * WAYS):
        met = counts[slot, 0] + counts[slot, 1] + counts[slot, 2] + counts[slot, 3]
        if met < least:
            rarest, least = slot, met
    return rarest


@compiled
def _set_of(keys: KeyTable, key: int) -> int:
    return int((np.uint64(key) * _GOLDEN) >> np.uint64(32)) & (len(keys) - 1)
