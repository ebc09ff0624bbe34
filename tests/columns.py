"""What columns that grow hold, without the room that they have left."""


def known(store):
    """What the store holds of its log, to the last bit."""
    state, total = store._state, store.total
    used = state.keys.ravel() > 0
    of_users = [
        state.behaviours[of["start"] : of["start"] + of["size"]].tolist() for of in state.users[: store.num_users]
    ]
    pairs = dict(zip(state.keys.ravel()[used].tolist(), state.counts[used].tolist(), strict=True))
    sums = [state.users[name][: store.num_users].tolist() for name in state.users.dtype.names if name != "start"]
    return total.tolist(), sums, store.items.tolist(), of_users, pairs, state.items_by_count_C.tolist()
