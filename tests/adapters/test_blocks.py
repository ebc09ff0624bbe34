import torch

from m6rec import adapters
from m6rec.adapters import TaskAdapterConfig
from tests import tiny


def test_masters_stay_fp32_beside_a_bf16_foundation():
    model = tiny.model(dtype=torch.bfloat16)
    t = adapters.create(TaskAdapterConfig(method="upper", first_layer=3), model, seed=0)
    ids_BL = tiny.ids(1, 5)
    assert torch.equal(model(ids_BL, hook=t), model(ids_BL))
    model(ids_BL, hook=t).float().square().sum().backward()
    for parameter in t.module.parameters():
        assert parameter.dtype == parameter.grad.dtype == torch.float32
        assert parameter.grad.any()


def test_copies_share_nothing_with_the_foundation():
    model = tiny.model()
    before = model(tiny.ids(1, 5))
    t = adapters.create(TaskAdapterConfig(method="full", first_layer=0), model, seed=0)
    with torch.no_grad():
        for parameter in t.module.parameters():
            parameter.mul_(2)
    assert torch.equal(model(tiny.ids(1, 5)), before)
    assert not torch.allclose(model(tiny.ids(1, 5), hook=t), before)
