import torch

from m6rec import adapters
from m6rec.adapters import TaskAdapterConfig
from m6rec.adapters.adapter import Adapter
from tests import tiny


def test_formula_by_hand():
    adapter = Adapter(2, 2, torch.Generator())
    with torch.no_grad():
        adapter.w1_DR.copy_(torch.tensor([[1.0, -1.0], [2.0, 0.0]]))
        adapter.b1_R.copy_(torch.tensor([0.5, 0.0]))
        adapter.w2_RD.copy_(torch.tensor([[1.0, 3.0], [10.0, 10.0]]))
        adapter.b2_D.copy_(torch.tensor([0.0, 1.0]))
        adapter.scale.fill_(2.0)
    # Z W1 + b1 = (1 + 4 + 0.5, -1); ReLU → (5.5, 0); W2 → (5.5, 16.5); + b2 → (5.5, 17.5); times λ = 2.
    assert adapter(torch.tensor([[[1.0, 2.0]]])).tolist() == [[[11.0, 35.0]]]


def test_only_layers_from_first_layer_on():
    model = tiny.model()
    module = adapters.create(TaskAdapterConfig(method="adapter", first_layer=2), model, seed=0).module
    for layer in range(2):
        torch.nn.init.ones_(module.get_parameter(f"layers.{layer}.b2_D"))
    x_BLD, y_BLD = torch.randn(1, 3, 32), torch.zeros(1, 3, 32)
    assert [module.ffn(layer, x_BLD, y_BLD).max().item() for layer in range(4)] == [0, 0, 1, 1]


def test_the_rank_is_that_of_a_head_or_as_given():
    model = tiny.model()
    for rank, width in ((0, model.config.width // model.config.num_heads), (3, 3)):
        config = TaskAdapterConfig(method="adapter", first_layer=2, adapter_rank=rank)
        made = adapters.create(config, model, seed=0)
        assert made.module.get_parameter("layers.0.w1_DR").shape == (32, width)
