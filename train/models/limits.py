"""What an architecture of unknown origin may hold: known layers, bounded sizes, and layers that fit one another."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch

from etl.errors import ConfigError
from etl.numbers import count, count_of
from train import compat

compat.install()

from ultralytics.nn import tasks  # noqa: E402 - after compat.install()

LAYERS = frozenset(  # that compute from their inputs alone; others download weights or have heads of other tasks
    {
        "A2C2f", "AConv", "ADown", "AIFI", "Bottleneck", "BottleneckCSP", "C1", "C2", "C2PSA", "C2f", "C2fCIB",
        "C2fPSA", "C3", "C3Ghost", "C3TR", "C3k2", "C3x", "CBFuse", "CBLinear", "Concat", "Conv", "Conv2",
        "ConvTranspose", "DWConv", "DWConvTranspose2d", "Detect", "ELAN1", "Focus", "GhostBottleneck", "GhostConv",
        "HGBlock", "HGStem", "PSA", "RepC3", "RepConv", "RepNCSPELAN4", "RepVGGDW", "ResNetLayer", "SCDown", "SPP",
        "SPPELAN", "SPPF", "nn.AvgPool2d", "nn.BatchNorm2d", "nn.Conv2d", "nn.ConvTranspose2d", "nn.Dropout",
        "nn.Identity", "nn.MaxPool2d", "nn.ReLU", "nn.SiLU", "nn.Upsample", "nn.ZeroPad2d",
    }
)  # fmt: skip
MOST_LAYERS = 200
MOST_REPEATS = 100  # of a layer
MOST_CATEGORIES = 10_000
_MOST_CHANNELS = 4096  # of the first arguments, which are numbers of channels
_MOST_OF_OTHERS = 64  # of the arguments after the third: repeats, kernels, padding
_MOST_MULTIPLE = 4.0
_MOST_PARAMETERS = 300_000_000
_MOST_VALUES = 2**28  # of a feature map at an input of 256 px
_SIDE = 256
_UNFIT = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def check_limits(architecture: dict[str, Any], where: str) -> None:
    """Raise ConfigError for an architecture with too many or too large layers, or with layers that do not fit."""
    layers = [*architecture["backbone"], *architecture["head"]]
    if len(layers) > MOST_LAYERS:
        raise ConfigError("the model", where, f"{len(layers)} layers", f"at most {MOST_LAYERS}")
    _check_scales(architecture, where)
    for key, most in (("nc", MOST_CATEGORIES), ("reg_max", _MOST_OF_OTHERS)):
        value = architecture.get(key, 1)
        if type(value) is not int or not 1 <= value <= most:
            raise ConfigError("the model", f"{where}: {key}", _shown(value), f"a whole number from 1 to {most}")
    for number, (inputs, repeats, name, arguments) in enumerate(layers):
        place = f"{where}: layer {number}"
        if type(repeats) is not int or not 1 <= repeats <= MOST_REPEATS:
            raise ConfigError("the model", f"{place}: repeats", _shown(repeats), f"1 to {MOST_REPEATS}")
        sources = inputs if isinstance(inputs, list) else [inputs]
        if not sources or not all(type(one) is int and -max(number, 1) <= one < number for one in sources):
            raise ConfigError("the model", f"{place}: from", _shown(inputs), "numbers of earlier layers")
        for position, argument in enumerate(arguments):
            most = _MOST_CHANNELS if position < 3 and name != "nn.Upsample" else _MOST_OF_OTHERS
            _check_argument(argument, most, place)
    _check_size(architecture, where)


def _check_scales(architecture: dict[str, Any], where: str) -> None:
    scales, scale = architecture.get("scales") or {}, architecture.get("scale")
    if not isinstance(scales, dict) or (scales and scale is not None and scale not in scales):
        raise ConfigError("the model", f"{where}: scales", _shown(scales), f"a mapping with the scale {scale!r}")
    own = [architecture.get(key, 1.0) for key in ("depth_multiple", "width_multiple")]
    for row in [[*own, _MOST_CHANNELS], *scales.values()]:
        fits = isinstance(row, list) and len(row) == 3 and all(type(value) in (int, float) for value in row)
        if not fits or not all(0 < value <= _MOST_MULTIPLE for value in row[:2]) or not row[2] > 0:
            expected = f"[depth, width, most channels], depth and width above 0 up to {_MOST_MULTIPLE:g}"
            raise ConfigError("the model", f"{where}: scales", _shown(row), expected)


def _check_argument(argument: Any, most: int, place: str) -> None:
    """Raise ConfigError unless an argument is a small number, a word, true, false, null, or a short list of these."""
    if isinstance(argument, list) and len(argument) <= _MOST_OF_OTHERS:
        for part in argument:
            _check_argument(part, most, place)
        return
    is_word = isinstance(argument, str) and argument.isidentifier() and len(argument) <= _MOST_OF_OTHERS
    is_number = isinstance(argument, int | float) and math.isfinite(argument) and abs(argument) <= most
    if not (argument is None or is_word or is_number):
        raise ConfigError("the model", f"{place}: argument", _shown(argument), f"a number up to {most}, or a word")


def _check_size(architecture: dict[str, Any], where: str) -> None:
    """Raise ConfigError for a network that is too large; it is built without memory for its values."""
    found = "layers that do not fit one another"
    try:
        with torch.device("meta"), torch.no_grad():
            own = copy.deepcopy(architecture)
            own["scale"] = own.get("scale") or next(iter(own.get("scales") or {}), None)  # else Ultralytics warns
            layers, _ = tasks.parse_model(own, ch=3, verbose=False)
            parameters = sum(parameter.numel() for parameter in layers.parameters())
            values = _largest_map(layers.eval())
    except _UNFIT as error:
        raise ConfigError("the model", where, f"{found} ({_shown(error)})", "layers that do") from error
    if parameters > _MOST_PARAMETERS:
        raise ConfigError("the model", where, count_of(parameters, "parameter"), f"at most {count(_MOST_PARAMETERS)}")
    if values > _MOST_VALUES:
        raise ConfigError(
            "the model", where, f"a feature map of {count_of(values, 'value')}", f"at most {count(_MOST_VALUES)}"
        )


def _largest_map(layers: Any) -> int:
    """Return the number of values of the largest output before the head, up to the first that is too large."""
    outputs: list[Any] = [torch.zeros(1, 3, _SIDE, _SIDE)]
    largest = 0
    for layer in layers[:-1]:
        places = layer.f if isinstance(layer.f, list) else [layer.f]
        inputs = [outputs[place if place < 0 else place + 1] for place in places]
        outputs.append(layer(inputs if isinstance(layer.f, list) else inputs[0]))
        made = outputs[-1] if isinstance(outputs[-1], list | tuple) else [outputs[-1]]
        if (largest := max(largest, *(part.numel() for part in made))) > _MOST_VALUES:
            break
    return largest


def _shown(value: object) -> str:
    text = " ".join((str(value) if isinstance(value, Exception) else repr(value)).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
