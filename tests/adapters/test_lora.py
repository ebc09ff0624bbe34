import pytest
import torch

from m6rec import adapters
from m6rec.adapters import TaskAdapterConfig
from m6rec.adapters.lora import LINEARS
from m6rec.foundation import checkpoint
from tests import tiny

peft = pytest.importorskip("peft")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers by an old name
@pytest.mark.parametrize("name", ["llama-biased", "qwen3", "gemma3"])
def test_equals_peft(name, tmp_path):
    theirs = tiny.hf_folder(name, tmp_path)
    model = checkpoint.load(str(tmp_path), dtype="float32").model
    lora = peft.LoraConfig(r=4, lora_alpha=12, target_modules=[f"{linear}_proj" for linear in LINEARS])
    theirs = peft.get_peft_model(theirs, lora).eval()
    ours = adapters.create(TaskAdapterConfig(method="lora", first_layer=0, lora_rank=4, lora_alpha=12), model, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for i, layer in enumerate(theirs.base_model.model.model.layers):
            for linear in LINEARS:
                half = layer.self_attn if linear in "qkvo" else layer.mlp
                module, part = getattr(half, f"{linear}_proj"), ours.module.get_submodule(f"layers.{i}.{linear}")
                for matrix in (module.lora_A, module.lora_B):
                    matrix.default.weight.normal_(std=0.05, generator=generator)
                part.get_parameter("a_IR").copy_(module.lora_A.default.weight.T)
                part.get_parameter("b_RO").copy_(module.lora_B.default.weight.T)
        ids_BL = tiny.ids(2, 9)
        expected = theirs(ids_BL).logits
        assert (expected - model(ids_BL)).abs().max() > 0.1
        torch.testing.assert_close(model(ids_BL, hook=ours), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.merge(model)(ids_BL), expected, rtol=1e-5, atol=2e-5)
