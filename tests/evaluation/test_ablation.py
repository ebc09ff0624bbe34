import numpy as np
import polars as pl
import torch

from m6rec.data.read import read
from m6rec.data.split import TEST, TRAIN, Split
from m6rec.evaluation.ablation import BASE_ALONE, MEAN_STATE, TEXT, reading_tables
from m6rec.readouts.score import ablations
from tests.readouts.test_score import ROWS, close, make


def test_the_parts_of_what_is_known_and_the_whole():
    runs = [make(seed=0), make(seed=1)]
    found = ablations("ours", runs, ROWS["like"])
    assert list(found) == ["ours", BASE_ALONE, TEXT, MEAN_STATE]
    for seed, run in enumerate(runs):
        base_QC, text_QC = run.logits(ROWS["like"])
        close(found["ours"][seed], run.probabilities(ROWS["like"]))
        close(found[BASE_ALONE][seed], base_QC.softmax(-1))
        close(found[TEXT][seed], text_QC.softmax(-1))
        assert np.abs(found[MEAN_STATE][seed] - found["ours"][seed]).max() > 1e-3


def test_a_task_without_numbers_has_no_base():
    assert list(ablations("ours", [make("ctr")], ROWS["ctr"])) == ["ours", MEAN_STATE]


def test_nothing_is_read_where_the_mean_state_stands_for_every_text():
    """Two candidates of one moment, told apart by their texts alone, are then alike."""
    run, row = make(), ROWS["like"][0]
    assert row.candidates[0] != row.candidates[1]
    alike = row.only(np.arange(len(row.events)) < 2)
    alike.visible[:] = alike.visible.min()
    alike.features[:] = alike.features[0]
    _, read_QC = run.logits([alike])
    _, unread_QC = run.logits([alike], mean_state=True)
    assert not torch.allclose(read_QC[0], read_QC[1], atol=1e-4)
    torch.testing.assert_close(unread_QC[0], unread_QC[1])


def test_what_reading_adds_is_told_for_each_number_of_earlier_events():
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 30, 400), rng.integers(0, 40, 400)
    log = read(
        pl.DataFrame({"user": users.astype(str), "item": items.astype(str), "time": np.arange(400) + 1}),
        pl.DataFrame({"item": [str(n) for n in range(40)], "title": [f"T{n}" for n in range(40)]}),
    )
    split = Split(log, np.where(np.arange(400) < 100, TRAIN, TEST).astype(np.uint8))
    events, labels = np.arange(100, 400), rng.integers(0, 2, 300)
    base = rng.random(300)
    found = {"ours": [base + labels], BASE_ALONE: [base], MEAN_STATE: [base]}
    of_user, of_item = reading_tables(split, labels, events, found)
    assert "user's earlier events" in of_user.title
    assert "item's earlier events" in of_item.title
    for table in (of_user, of_item):
        assert sum(int(word.split("n=")[1].rstrip(")")) for word in table.columns) <= 300
        for word in table.columns:
            assert table.rows[0].metrics[word] == (1.0,)
            assert f"{word}: +0." in table.note
            assert f"over {BASE_ALONE}" in table.note
