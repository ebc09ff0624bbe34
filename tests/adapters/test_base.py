import torch

from m6rec import adapters
from m6rec.adapters import TaskAdapterConfig
from m6rec.adapters.base import Base
from tests import tiny


def numbers(count, seed=0):
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


def base(gate_columns=(1, 3)):
    made = Base(4, 3, gate_columns, torch.Generator().manual_seed(0))
    with torch.no_grad():
        made.network.w3_RD.normal_(generator=torch.Generator().manual_seed(1))
        made.gate_weight_G.copy_(torch.tensor([2.0, -1.0]))
    return made


def test_a_fresh_base_says_nothing_and_its_network_is_not_trained_beside_the_text():
    made = Base(4, 3, (1,), torch.Generator().manual_seed(0))
    assert torch.equal(made(numbers(5)), torch.zeros(5, 3))
    assert {name for name, p in made.named_parameters() if p.requires_grad} == {"gate_weight_G", "gate_bias"}


def test_the_gate_sees_its_columns_alone():
    made, features_BF = base(), numbers(6)
    gate_B1 = made.gate(features_BF)
    assert gate_B1.shape == (6, 1)
    assert ((gate_B1 > 0) & (gate_B1 < 1)).all()
    expected_B = torch.sigmoid(2 * features_BF[:, 1] - features_BF[:, 3] + made.gate_bias)
    torch.testing.assert_close(gate_B1[:, 0], expected_B)


def test_a_row_does_not_depend_on_its_company():
    made, features_BF = base(), numbers(40)
    for count in (1, 2, 17):
        assert torch.equal(made(features_BF[:count]), made(features_BF)[:count])
        assert torch.equal(made.gate(features_BF[:count]), made.gate(features_BF)[:count])


def test_a_score_is_the_base_and_what_reading_adds_to_it():
    config = TaskAdapterConfig(method="head", first_layer=0, num_classes=3, num_features=4, gate_columns=(1, 3))
    made = adapters.create(config, tiny.model(), seed=0)
    made.base = base()
    normed_BD, features_BF = torch.randn(5, 32, generator=torch.Generator().manual_seed(2)), numbers(5)
    base_BC, text_BC = made.parts(normed_BD, features_BF)
    assert torch.equal(base_BC, made.base(features_BF))
    assert torch.equal(text_BC, made.base.gate(features_BF) * made.head(normed_BD))
    assert torch.equal(made.score(normed_BD, features_BF), base_BC + text_BC)
