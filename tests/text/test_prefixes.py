import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m6rec.text import prefixes
from m6rec.text.prefixes import grow, pad_trees

ROWS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=30)


@given(ROWS)
def test_every_row_is_found_in_one_tree(rows):
    trees = grow(rows)
    found = {number: [tree.ids[place] for place in path] for tree in trees for number, path in tree.paths.items()}
    assert found == dict(enumerate(rows))
    assert sum(len(tree.paths) for tree in trees) == len(rows)


@given(ROWS)
def test_a_token_sees_its_ancestors_alone(rows):
    trees = grow(rows)
    ids_BL, positions_BL, mask_BLL = pad_trees(trees)
    for b, tree in enumerate(trees):
        for number, path in tree.paths.items():
            for depth, place in enumerate(path):
                assert np.flatnonzero(mask_BLL[b, place]).tolist() == path[: depth + 1]
                assert (positions_BL[b, place], ids_BL[b, place]) == (depth, rows[number][depth])
        padding = np.arange(len(tree.ids), ids_BL.shape[1])
        assert (mask_BLL[b, padding].sum(1) == 1).all()


def test_what_texts_share_is_laid_out_once():
    film = [5, 6, 7, 8]
    (tree,) = grow([[*film, 1], [*film, 2, 3], [*film, 2, 4], film])
    assert tree.ids == [*film, 1, 2, 3, 4]


def test_a_short_common_start_does_not_join_texts():
    assert len(grow([[1, 2, 3, 4], [1, 5, 6, 7]])) == 2


def test_a_tree_stops_growing(monkeypatch):
    monkeypatch.setattr(prefixes, "LONGEST", 6)
    assert [len(tree.ids) for tree in grow([[1, 2, 3, n] for n in range(6)])] == [6, 6]
    assert len(grow([list(range(20))])) == 1


@pytest.mark.parametrize("rows", [[], [[1]]])
def test_few_rows(rows):
    assert len(grow(rows)) == len(rows)
