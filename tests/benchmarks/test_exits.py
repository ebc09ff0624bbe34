"""Exits by confidence: when a text is left, what that costs, and that a whole study of a small student can be made."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.exits import (
    COSINE,
    LEAD,
    OPERATIONS,
    VALIDATION,
    WORDS,
    Operations,
    Study,
    above,
    calm,
    left_after,
    told,
)
from m6rec.data.split import TEST, VALID
from m6rec.edge import shrink
from m6rec.edge.model_card import fidelity
from m6rec.evaluation.report import Row
from tests import pocket
from tests.edge import test_shrink


def test_a_text_is_left_where_its_state_rests():
    agreement_NT = np.array([[0.9, 0.2, 0.9, 0.2], [0.2, 0.9, 0.9, 0.2], [0.9, 0.9, 0.9, 0.9]], np.float32)
    np.testing.assert_array_equal(left_after(agreement_NT, 0.5, 1), [2, 3, 2, 4])
    np.testing.assert_array_equal(left_after(agreement_NT, 0.5, 2), [4, 4, 3, 4])  # 4 is the last
    np.testing.assert_array_equal(left_after(agreement_NT, 0.95, 1), [4, 4, 4, 4])
    for patience in (1, 2):
        rest_T = calm(agreement_NT, patience)
        for threshold in (0.1, 0.2, 0.5, 0.9):
            early_T = left_after(agreement_NT, threshold, patience) < 4
            np.testing.assert_array_equal(early_T, rest_T >= np.float32(threshold))


def test_who_is_told_leaves_where_least_is_lost():
    cosine_NT = np.array([[0.5, 0.1, 0.5], [0.6, 0.8, 0.5], [0.9, 0.8, 0.51]], np.float32)
    np.testing.assert_array_equal(told(cosine_NT, 0.3), [3, 2, 3])
    np.testing.assert_array_equal(told(cosine_NT, 1.0), [3, 2, 1])


def test_a_rule_is_compared_with_exits_at_as_many_operations():
    def row(name, operations, quality):
        return Row(
            method=name,
            metrics=dict.fromkeys((COSINE, VALIDATION, WORDS), (quality,)) | {OPERATIONS: (operations,)},
        )

    first, second, rule = above([row("layer 1", 1.0, 0.5), row("layer 2", 2.0, 0.7), row("rule", 1.5, 0.65)], 2)
    assert (first.method, second.method) == ("layer 1", "layer 2")
    assert rule.mean(f"{WORDS}, {LEAD}") == pytest.approx(0.05)


def test_a_study_of_a_small_student(tmp_path):
    small, card = test_shrink.shrunk(tmp_path / "student", replace(test_shrink.SMALL, epochs=1, tuning_epochs=0))
    teacher = pocket.tuned()
    learned, held_out = shrink.texts_of(teacher.task, teacher.domain, test_shrink.LOG, test_shrink.SMALL)
    asked = []
    study = Study(
        teacher=teacher,
        learned=learned,
        held_out=held_out,
        words={VALID: pocket.rows(), TEST: pocket.rows()},
        to_words=lambda one: asked.append(one) or one,
    )
    measured, claims = study.of({"small": (small, tmp_path / "student")})
    (table,) = measured["tables"]
    depths, rules = table.rows[:3], table.rows[3:]
    assert [row.method for row in depths] == ["layer 1", "layer 2", "layer 3"]
    assert [row.method.split()[0] for row in rules] == ["leaves"] * 3 + ["told"]
    assert [row.mean("layers a text") for row in depths] == [1, 2, 3]
    lengths = [len(row) for row in small.foundation.tokenizer.encode(learned)]
    expected = card["operations"]["to read a text, by layers"]
    of_learned = Operations.of(small, learned)
    for layers, operations in enumerate(expected, 1):
        assert of_learned.of_texts(np.full(len(lengths), layers), watched=False).mean() == pytest.approx(
            operations, abs=1
        )
    whole = small.scores(pocket.rows())
    np.testing.assert_allclose(asked[2].scores(pocket.rows()), whole, atol=1e-5)  # left after the last layer
    cosine = fidelity(shrink.at_exit(small, 2), teacher, held_out)["cosine"]
    assert depths[1].mean(COSINE) == pytest.approx(cosine, abs=1e-5)
    for row, share in zip(rules[:3], (0.25, 0.5, 0.75), strict=True):
        assert row.mean("layers a text") == pytest.approx(3 - share, abs=0.15)
    assert [claim[2] for claim in claims] == ["<="]
    again, _ = study.of({"small": (small, tmp_path / "student")})
    assert len(asked) == len(table.rows)  # nothing is asked twice
    assert json.dumps([row.metrics for row in again["tables"][0].rows]) == json.dumps(
        [row.metrics for row in table.rows]
    )
