import json
import logging
import os
from copy import copy

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from m6rec.predicate import ALL
from m6rec.retrieval.blend import fit
from m6rec.retrieval.index import IndexConfig
from m6rec.serving.item_index import FILE, ItemIndex
from m6rec.types import Item
from tests import tiny

ITEMS = {f"i{n}": Item(f"i{n}", f"Film {n}", ("Drama", "Wär 😀")[: n % 3]) for n in range(12)}


@pytest.fixture(scope="module")
def retrieve():
    """Of the twelve items, three are liked."""
    plain = tiny.retrieval(tiny.foundation(num_layers=4), list(ITEMS.values()), "movielens")
    plain.blend = fit((f"u{n % 2}", f"i{n % 3}", True) for n in range(6))
    return plain


def built(retrieve, items=ITEMS):
    index = ItemIndex(retrieve)
    index.put(list(items.values()), retrieve.item_vectors(list(items.values())))
    return index


@pytest.fixture
def folder(retrieve, tmp_path):
    built(retrieve).save(tmp_path / "new" / "folder", ITEMS)
    return tmp_path / "new" / "folder"


def restored(retrieve, folder, items=ITEMS):
    index = ItemIndex(retrieve)
    index.restore(folder, items)
    return index


def found(index, retrieve):
    query = np.random.default_rng(0).standard_normal(retrieve.width).astype(np.float32)
    return index.search(query, 100, ALL, (), ["i1"])


def test_warm_and_new_items_are_found_by_one_score(retrieve):
    blend = retrieve.blend
    index, query = built(retrieve), np.random.default_rng(0).standard_normal(retrieve.width).astype(np.float32)
    added = dict(zip(blend.numbers, blend.scores(["i1"]).tolist(), strict=True))
    score = {item: blend.text * float(index.vectors([item])[0] @ query) + added.get(item, 0) for item in ITEMS}
    found = index.search(query, 12, ALL, (), ["i1"])
    assert [item for item, _ in found] == sorted(ITEMS, key=lambda item: -score[item])
    assert dict(found) == pytest.approx(score, abs=1e-5)
    assert max(added.values()) > 0
    text_alone = copy(retrieve)
    text_alone.blend = None
    plain = built(text_alone)
    by_text = dict(plain.search(query, 12, ALL, (), ["i1"]))
    assert {item: blend.text * product for item, product in by_text.items() if item not in added} == pytest.approx(
        {item: score[item] for item in ITEMS if item not in added}, abs=1e-5
    )


def test_a_restored_index_answers_as_the_one_that_was_saved(retrieve, folder):
    index, before = restored(retrieve, folder), built(retrieve)
    assert found(index, retrieve) == found(before, retrieve)
    np.testing.assert_array_equal(index.vectors(list(ITEMS)), before.vectors(list(ITEMS)))
    assert os.listdir(folder) == [FILE]


def test_a_restored_index_goes_on(retrieve, folder):
    index = restored(retrieve, folder)
    more = [Item("i3", "Another"), Item("fresh", "Storm")]
    index.put(more, retrieve.item_vectors(more))
    assert index.remove(["i5", "i5", "i99"]) == 1
    changed = {**ITEMS, **{item.id: item for item in more}}
    del changed["i5"]
    assert dict(found(index, retrieve)) == pytest.approx(dict(found(built(retrieve, changed), retrieve)), rel=1e-5)


def test_items_that_changed_or_left_are_not_restored(retrieve, folder):
    now = {**ITEMS, "i1": Item("i1", "Another"), "i7": Item("i7", "Film 7", ("War",)), "fresh": Item("fresh", "Storm")}
    del now["i4"]
    index = restored(retrieve, folder, now)
    assert {item for item in now if item not in index} == {"i1", "i7", "fresh"}
    assert "i4" not in index


def test_it_is_written_only_when_it_changed(retrieve, folder):
    index = restored(retrieve, folder)
    (folder / FILE).unlink()
    index.save(folder, ITEMS)
    assert not (folder / FILE).exists()
    index.remove(["i4"])
    index.save(folder, ITEMS)
    assert (folder / FILE).exists()
    again = ItemIndex(retrieve)
    again.restore(folder, {item: ITEMS[item] for item in ITEMS if item != "i5"})
    (folder / FILE).unlink()
    again.save(folder, ITEMS)  # what it left out is a change as well
    assert (folder / FILE).exists()


def other_catalogue(retrieve):
    return tiny.retrieval(retrieve.foundation, list(ITEMS.values())[:9], "movielens", cache=retrieve.cache)


def other_foundation(retrieve):
    return tiny.retrieval(tiny.foundation(num_layers=4, seed=3), list(ITEMS.values()), "movielens")


@pytest.mark.parametrize("change", [other_catalogue, other_foundation])
def test_a_snapshot_of_another_tuning_is_refused(retrieve, folder, caplog, change):
    index = restored(change(retrieve), folder)
    assert not any(item in index for item in ITEMS)
    assert "read anew" in caplog.text
    assert "another tuning" in caplog.text


def rewrite(change):
    """Changes the arrays and keeps the card."""

    def damage(file):
        with safe_open(file, "np") as opened:
            card = opened.metadata()
        tensors = {name: array.copy() for name, array in load_file(file).items()}
        change(tensors, card)
        save_file(tensors, file, metadata=card)

    return damage


def flip(tensors, card):
    tensors["lists"][-1] ^= 1


def swap_ids(tensors, card):
    ids = json.loads(tensors["ids"].tobytes())
    tensors["ids"] = np.frombuffer(json.dumps(ids[::-1]).encode(), np.uint8)


def drop(tensors, card):
    del tensors["texts"]


def grow_old(tensors, card):
    card["format"] = "0"


DAMAGES = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-10]),
    "empty": lambda file: file.write_bytes(b""),
    "noise": lambda file: file.write_bytes(b"noise" * 100),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "a bit": rewrite(flip),
    "other ids": rewrite(swap_ids),
    "less": rewrite(drop),
    "another version": rewrite(grow_old),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_snapshot_is_refused(retrieve, folder, caplog, damage):
    DAMAGES[damage](folder / FILE)
    index = restored(retrieve, folder)
    assert not any(item in index for item in ITEMS)
    assert "read anew" in caplog.text


def test_a_first_start_has_nothing_to_complain_of(retrieve, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert "i1" not in restored(retrieve, tmp_path)
    assert not caplog.records


def test_what_can_not_be_written_is_a_warning_and_leaves_nothing(retrieve, tmp_path, caplog):
    (tmp_path / "file").touch()
    built(retrieve).save(tmp_path / "file", ITEMS)
    assert "can't be kept" in caplog.text
    (tmp_path / FILE).mkdir()
    (tmp_path / FILE / "other").touch()
    built(retrieve).save(tmp_path, ITEMS)
    assert len(caplog.records) == 2
    assert sorted(os.listdir(tmp_path)) == ["file", FILE]


def test_an_index_of_many_lists_is_restored_as_it_is(retrieve, tmp_path):
    before, again = (ItemIndex(retrieve, IndexConfig(exact=5)) for _ in range(2))
    before.put(list(ITEMS.values()), retrieve.item_vectors(list(ITEMS.values())))
    before.save(tmp_path, ITEMS)
    again.restore(tmp_path, ITEMS)
    assert found(again, retrieve) == found(before, retrieve)
