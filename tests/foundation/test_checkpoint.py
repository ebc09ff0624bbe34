import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from m6rec.errors import AssetError, ConfigError
from m6rec.foundation import checkpoint
from tests import tiny


@pytest.fixture
def folder(tmp_path):
    tiny.hf_folder("llama", tmp_path / "hf")
    return tmp_path / "hf"


def edit_weights(folder, edit):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    file.unlink()  # the tensors still map the old file
    save_file(tensors, file)


def load(folder, **options):
    return checkpoint.load(str(folder), **{"dtype": "float32", **options})


def test_saved_equals_loaded(folder, tmp_path):
    model = load(folder).model
    raw = json.loads((folder / "config.json").read_text())
    checkpoint.save(model, raw, folder / "tokenizer.json", tmp_path / "copy")
    again = load(tmp_path / "copy")
    ids_BL = tiny.ids(1, 6)
    assert torch.equal(again.model(ids_BL), model(ids_BL))
    assert again.tokenizer.encode(["the man"]) == load(folder).tokenizer.encode(["the man"])
    with pytest.raises(ConfigError, match="exists already"):
        checkpoint.save(model, raw, folder / "tokenizer.json", tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "hf"]


def test_shards_are_one_model(folder):
    ids_BL, whole = tiny.ids(1, 6), load(folder).model
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    for part, chosen in enumerate((names[::2], names[1::2])):
        save_file({name: tensors[name] for name in chosen}, folder / f"model-{part}.safetensors")
    (folder / "model.safetensors").unlink()
    assert torch.equal(load(folder).model(ids_BL), whole(ids_BL))


def test_the_text_half_of_a_vision_checkpoint_loads(tmp_path):
    folder = tmp_path / "hf"
    tiny.hf_folder("gemma3", folder)
    plain = load(folder).model(tiny.ids(1, 6))

    def prefix(tensors):
        text = {f"language_model.{name}": tensors.pop(name) for name in list(tensors)}
        tensors.update(text, **{"vision_tower.patches": torch.zeros(2)})

    edit_weights(folder, prefix)
    config = folder / "config.json"
    config.write_text(json.dumps({"model_type": "gemma3", "text_config": json.loads(config.read_text())}))
    assert torch.equal(load(folder).model(tiny.ids(1, 6)), plain)


def test_the_id_follows_the_weights(folder):
    first = load(folder).model.id
    assert load(folder).model.id == first == load(folder, dtype="bfloat16").model.id
    edit_weights(folder, lambda tensors: tensors["model.norm.weight"].add_(1))
    assert load(folder).model.id != first


def test_dtype(folder):
    assert load(folder, dtype="bfloat16").model.dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="'float16' is not supported; choose one of auto, float32, bfloat16"):
        load(folder, dtype="float16")


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [((), torch.float32), (("avx512_bf16",), torch.bfloat16), (("amx_tile",), torch.bfloat16)],
)
def test_by_default_the_type_is_the_faster_one_of_the_processor(folder, monkeypatch, instructions, expected):
    for one in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{one}_supported", lambda one=one: one in instructions)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert checkpoint.load(str(folder)).model.dtype == expected


def test_device(folder):
    with pytest.raises(ConfigError, match="'toaster' is unknown; give cpu, cuda"):
        load(folder, device="toaster")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA device is visible"):
            load(folder, device="cuda:0")


def test_no_such_name():
    with pytest.raises(AssetError, match=r"no foundation 'smollm3': .* smollm2-135m.*or a hub id"):
        checkpoint.load("smollm3")


def test_no_such_gguf(tmp_path):
    with pytest.raises(AssetError, match="no GGUF file at"):
        checkpoint.load(str(tmp_path / "absent.gguf"))


def test_a_damaged_gguf_leaves_nothing_behind(tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(AssetError, match=r"could not read .*bad\.gguf as a GGUF model"):
        checkpoint.load(str(tmp_path / "bad.gguf"))
    assert [path.name for path in tmp_path.iterdir()] == ["bad.gguf"]


def test_no_network(monkeypatch):
    def unreachable(*args, **options):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(AssetError, match=r"could not fetch 'some/model' .*ConnectionError.*one of smollm2-135m"):
        checkpoint.load("some/model")


def test_no_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(AssetError, match=r"holds no readable config\.json"):
        load(folder)


def test_broken_config(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(AssetError, match=r"holds no readable config\.json"):
        load(folder)


def test_incomplete_config(folder):
    (folder / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 3}')
    with pytest.raises(AssetError, match=r"config\.json lacks 'num_attention_heads'"):
        load(folder)


def test_unknown_family(folder):
    (folder / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(ConfigError, match="'mamba' is not supported"):
        load(folder)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(AssetError, match=r"holds no \.safetensors file"):
        load(folder)


def test_missing_weights(folder):
    edit_weights(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(AssetError, match=r"lacks 1 weights, the first is model\.layers\.1\.mlp\.up_proj\.weight"):
        load(folder)


def test_weights_of_another_shape(folder):
    edit_weights(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(31)}))
    with pytest.raises(AssetError, match=r"(?s)don't have the shapes of its config\.json.*norm\.weight"):
        load(folder)


def test_weights_that_would_be_ignored(tmp_path):
    config = transformers.LlamaConfig(**{**tiny.HF_CONFIGS["llama"]().to_dict(), "mlp_bias": True})
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    tiny.fast_tokenizer().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ConfigError, match=r"9 weights that we don't know .*down_proj\.bias"):
        load(tmp_path)


def test_damaged_safetensors(folder):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.unlink()
    file.write_bytes(whole[:-100])
    with pytest.raises(AssetError, match=r"model\.safetensors is damaged .*fetch it again"):
        load(folder)


def test_no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(AssetError, match="no readable tokenizer"):
        load(folder)
