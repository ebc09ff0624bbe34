"""Every attention pattern equals ordinary attention under a mask, whatever the layout (design/030)."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m6rec.foundation.attention import CachedQuery, Dense
from m6rec.text import prefixes
from tests import reference, tiny

DRAWN = settings(max_examples=25, deadline=None)
LAYERS = 3
MODELS = [tiny.model(num_layers=LAYERS), tiny.model(num_layers=LAYERS, window=3)]


def drawn(*shape, seed):
    return torch.randn(*shape, 32, generator=torch.Generator().manual_seed(seed))


def expected(model, hidden_TD, positions, sees, depth):
    """Layers from ``depth`` on over one row, under the mask of who sees whom."""
    positions_1T = torch.tensor([positions])
    attention = Dense(positions_1T, reference.mask(len(positions), sees)[None])
    return model.finish(model.run(hidden_TD[None], positions_1T, attention, first=depth))[0]


@DRAWN
@given(data=st.data(), model=st.sampled_from(MODELS), depth=st.integers(0, LAYERS - 1))
def test_a_context_and_its_candidates(data, model, depth):
    n, count, size = (data.draw(st.integers(low, 6)) for low in (0, 1, 1))
    visible = [data.draw(st.integers(0, n)) for _ in range(count)]
    length = data.draw(st.none() | st.integers(0, n))
    context_ND, blocks_CMD = drawn(n, seed=1), drawn(count, size, seed=2)
    length_B = None if length is None else torch.tensor([length])
    found = model.upper(context_ND[None], blocks_CMD[None], torch.tensor([visible]), depth, length_B=length_B)
    row_TD = torch.cat([context_ND, blocks_CMD.flatten(0, 1)])
    whole = expected(model, row_TD, *reference.shared_context(n, size, visible, length, None), depth)
    torch.testing.assert_close(found[0].flatten(0, 1), whole[n:], rtol=0, atol=1e-5)


@DRAWN
@given(data=st.data(), model=st.sampled_from(MODELS), depth=st.integers(0, LAYERS - 1))
def test_contexts_that_are_read_in_turns(data, model, depth):
    """Of several users at once, each with its own length, turns and candidates."""
    users = data.draw(st.integers(1, 3))
    ends = [sorted(data.draw(st.lists(st.integers(0, 7), min_size=2, max_size=2))) for _ in range(users)]
    asked = [(data.draw(st.integers(0, 3)), data.draw(st.integers(1, 3))) for _ in range(users)]
    contexts = [drawn(7, seed=user) for user in range(users)]
    blocks = [drawn(count, size, seed=10 + user) for user, (count, size) in enumerate(asked)]
    caches, starts = [() for _ in range(users)], [0] * users
    for turn in range(2):
        queries = [
            CachedQuery(caches[user], contexts[user][starts[user] : ends[user][turn]], blocks[user])
            for user in range(users)
        ]
        found, caches = model.forward_cached(queries, depth)
        for user, (count, size) in enumerate(asked):
            n = starts[user] = ends[user][turn]
            row_TD = torch.cat([contexts[user][:n], blocks[user].flatten(0, 1)])
            if len(row_TD):
                whole = expected(model, row_TD, *reference.shared_context(n, size, [n] * count, None, None), depth)
                torch.testing.assert_close(found[user].flatten(0, 1), whole[n:], rtol=0, atol=1e-5)


@DRAWN
@given(
    rows=st.lists(st.lists(st.integers(3, 6), min_size=1, max_size=6), min_size=1, max_size=6),
    model=st.sampled_from(MODELS),
)
def test_texts_that_share_their_beginnings(rows, model):
    trees = prefixes.grow(rows)
    ids_BL, positions_BL, mask_BLL = map(torch.from_numpy, prefixes.pad_trees(trees))
    found_BLD = model.lower(ids_BL, LAYERS, positions_BL=positions_BL, mask_BLL=mask_BLL)
    for tree, found_LD in zip(trees, found_BLD, strict=True):
        for number, path in tree.paths.items():
            alone_LD = model.lower(torch.tensor([rows[number]]), LAYERS)[0]
            torch.testing.assert_close(found_LD[path], alone_LD, rtol=0, atol=1e-5)
