from typing import Any

import pytest

from m6rec.edge.recipe import Recipe
from m6rec.errors import ConfigError

REFUSED: dict[str, Any] = {
    "a type": ({"width": "wide"}, "width is 'wide'; it must be an integer, at least 1"),
    "heads": ({"width": 20, "num_heads": 3}, "multiple of twice num_heads 3"),
    "sparsity": ({"sparsity": 1.0}, "sparsity is 1.0"),
    "nothing": ({"logits": 0, "labels": 0}, "nothing to tune by"),
    "no training": ({"hidden": 0, "relation": 0, "tuning_epochs": 0}, "nothing to train the student by"),
    "neurons": ({"upper_neurons": 0}, "upper_neurons is 0; it must be a number, above 0"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_recipes_that_make_no_sense(kind):
    values, message = REFUSED[kind]
    with pytest.raises(ConfigError, match=message):
        Recipe(**values)
