import json

import pytest
import torch
from safetensors.torch import load_file

from etl.errors import ConfigError, StoreError
from train import compat
from train.models import architecture, model, weights
from train.models.load import load_model

compat.install()

from ultralytics.nn import tasks  # noqa: E402 - after the operators are there

CATEGORIES = ["car", "boat", "no"]
META = {
    "dataset": "d",
    "snapshot": "s",
    "categories": CATEGORIES,
    "model": "speck-micro",
    "image_size": 64,
    "tile": {"size": 64, "overlap": 0.25, "min_visibility": 0.4, "scales": [1.0]},
    "config": {},
    "nms_free": False,
    "trained": {"epochs": 1, "seconds": 1.0, "device": "cpu", "weights": "scratch"},
}


def trained(name="speck-micro", seed=0):
    torch.manual_seed(seed)
    module = model.build_detector(architecture.resolve(name), CATEGORIES)
    module(torch.rand(4, 3, 64, 64))  # batch statistics away from their start
    return module.eval()


def test_a_saved_model_comes_back_with_the_same_outputs(tmp_path):
    module = trained()
    uri = model.save_model(module, str(tmp_path), META)
    loaded = model.load_saved_model(uri)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(loaded.module(image)[0], module(image)[0], atol=1e-4)
    assert uri == f"{tmp_path}/models/{loaded.id}"
    assert loaded.categories == tuple(CATEGORIES)
    assert (loaded.image_size, loaded.tile.size, loaded.stride, loaded.nms_free) == (64, 64, 32, False)
    assert not any(parameter.requires_grad for parameter in loaded.module.parameters())
    assert loaded.module.names == dict(enumerate(CATEGORIES))


def test_equal_weights_have_the_same_id_and_other_weights_another(tmp_path):
    first, again, other = (model.save_model(trained(seed=seed), str(tmp_path), META) for seed in (0, 0, 1))
    assert first == again != other


def test_weights_are_safetensors_in_float32_and_the_rest_is_json(tmp_path):
    uri = model.save_model(trained().half(), str(tmp_path), META)
    files = {path.name: path for path in (tmp_path / "models" / uri.rsplit("/", 1)[1]).iterdir()}
    assert sorted(files) == ["model.json", "weights.safetensors"]
    assert {v.dtype for v in load_file(files["weights.safetensors"]).values()} == {torch.float32, torch.int64}
    saved = json.loads(files["model.json"].read_text())
    assert saved.items() >= META.items()
    assert saved["architecture"]["nc"] == 3
    assert str(tmp_path) not in files["model.json"].read_text()


@pytest.mark.parametrize(("nms_free", "shape"), [(True, (1, 300, 6)), (False, (1, 7, 1280 + 64))])
def test_an_nms_free_model_keeps_the_head_it_is_used_with(tmp_path, nms_free, shape):
    uri = model.save_model(trained("yolo26n-p2"), str(tmp_path), {**META, "nms_free": nms_free})
    loaded = model.load_saved_model(uri)
    assert loaded.module(torch.rand(1, 3, 128, 128))[0].shape[:2] == ((1, 300) if nms_free else (1, 7))


def test_damaged_weights_are_refused(tmp_path):
    uri = model.save_model(trained(), str(tmp_path), META)
    path = tmp_path / "models" / uri.rsplit("/", 1)[1] / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(StoreError, match="damaged"):
        model.load_saved_model(uri)
    with pytest.raises(StoreError, match="no such file"):
        model.load_saved_model(str(tmp_path / "models" / "nothing"))


@pytest.mark.parametrize(
    "change",
    [
        {"activation": "__import__('os').system('true')"},
        {"backbone": [[-1, 1, "torch_safe_load", ["x"]]]},
        {"backbone": [[-1, 1, "torchvision.ops.nms", []]]},
        {"backbone": "Conv"},
        {"head": [[-1, 1, "Conv", [8, 3, 1]]]},
    ],
)
def test_an_architecture_that_is_more_than_layers_is_refused(tmp_path, change):
    uri = model.save_model(trained(), str(tmp_path), META)
    path = tmp_path / "models" / uri.rsplit("/", 1)[1] / "model.json"
    saved = json.loads(path.read_text())
    saved["architecture"].update(change)
    path.write_text(json.dumps(saved))
    with pytest.raises(ConfigError):
        model.load_saved_model(uri)


@pytest.mark.parametrize("name", ["yolo26n", "yolo26n-p2", "yolo26s", "yolo11n", "yolov8n-p2", "speck-micro"])
def test_known_names_resolve(name):
    assert architecture.resolve(name)["head"][-1][2] == "Detect"


def test_the_size_letter_chooses_the_width():
    small, large = (
        sum(p.numel() for p in model.build_detector(architecture.resolve(name), CATEGORIES).parameters())
        for name in ("yolo26n", "yolo26s")
    )
    assert small * 2 < large


@pytest.mark.parametrize("name", ["yolo99n", "yolo26n-seg", "../secret", "nothing.yaml", ""])
def test_an_unknown_model_is_a_config_error(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        architecture.resolve(name)


def test_a_model_can_be_a_yaml_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "backbone: [[-1, 1, Conv, [16, 3, 2]], [-1, 1, Conv, [16, 3, 2]]]\nhead: [[[1], 1, Detect, [nc]]]\nreg_max: 1\n"
    )
    module = model.build_detector(architecture.resolve(str(path)), CATEGORIES)
    assert module.stride.tolist() == [4]
    assert module.model[-1].nc == 3


def test_weights_of_another_model_start_what_fits(tmp_path):
    uri = model.save_model(trained(seed=1), str(tmp_path), META)
    module = model.build_detector(architecture.resolve("speck-micro"), ["car"])
    taken = weights.load_weights(module, uri)
    assert 0 < taken < len(module.state_dict())
    assert torch.equal(module.model[0].conv.weight, trained(seed=1).model[0].conv.weight)


def test_an_ultralytics_checkpoint_starts_a_model_and_a_foreign_pickle_does_not(tmp_path):
    class Foreign:
        def __reduce__(self):
            return (print, ("run",))

    torch.manual_seed(1)
    origin = tasks.DetectionModel(architecture.resolve("speck-micro"), nc=3, verbose=False)  # as Ultralytics saves one
    torch.save({"model": origin}, tmp_path / "good.pt")
    torch.save({"model": Foreign()}, tmp_path / "bad.pt")
    module = trained(seed=0)
    assert weights.load_weights(module, str(tmp_path / "good.pt")) > 0
    assert torch.equal(module.model[0].conv.weight, origin.model[0].conv.weight)
    with pytest.raises(ConfigError, match=r"bad\.pt"):
        weights.load_weights(module, str(tmp_path / "bad.pt"))


def test_weights_are_looked_for_before_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert weights.find_weights("auto", "yolo26n") is None
    (tmp_path / "yolo26n.pt").write_bytes(b"")
    assert weights.find_weights("auto", "yolo26n") == "yolo26n.pt"
    assert weights.find_weights("scratch", "yolo26n") is None
    with pytest.raises(ConfigError, match=r"train\.weights"):
        weights.find_weights("nowhere.pt", "yolo26n")


def test_a_gpu_that_this_machine_does_not_have_is_an_error_of_the_call(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    uri = model.save_model(trained(), str(tmp_path), META)
    with pytest.raises(ConfigError, match=r"device: found '0', expected auto or cpu: this machine has no GPU"):
        load_model(uri, "0")
    assert load_model(uri).device == torch.device("cpu")


def test_on_a_cpu_half_precision_falls_back_to_float32_and_says_so(tmp_path, caplog):
    uri = model.save_model(trained(), str(tmp_path), META)
    assert load_model(uri, "cpu").runs_on == "cpu, float32"
    assert not caplog.messages
    assert load_model(uri, "cpu", "half").runs_on == "cpu, float32"
    assert "precision half needs Torch and an NVIDIA GPU; it runs on cpu, float32" in caplog.text
    with pytest.raises(ConfigError, match="precision: found 'bf16', expected one of auto, half, float32"):
        load_model(uri, "cpu", "bf16")
