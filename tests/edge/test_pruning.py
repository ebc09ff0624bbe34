import torch

from m6rec.edge import pruning
from m6rec.edge.recipe import Recipe
from tests import pocket


def test_pruned_parts_are_those_that_add_least():
    teacher = pocket.tuned()
    weight_DF = teacher.foundation.model.get_parameter("layers.2.down_proj.weight")
    with torch.no_grad():
        weight_DF[:, 5] = weight_DF[:, 40] = 0
    config, neurons, heads = pruning.upper_parts(teacher, Recipe(upper_neurons=0.5), pocket.rows())
    assert config.ffn_width == 32
    assert not {5, 40} & set(neurons[0].tolist())
    assert heads[0].tolist() == [0, 1]
