"""Devices: one for the whole network, or a map that spreads its layers over several (`model.device_map`)."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from icl_eval.errors import ConfigError, ModelUnavailableError

DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""The words of accelerate. It fills the GPUs, then the memory of the machine, then the disk."""
_OFFLOADED = "disk"

DeviceMap = str | Mapping[str, Any] | None


def check_device(name: str) -> None:
    """Raise ConfigError if no machine has a device of this name; whether this one has it, only torch can tell."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ConfigError(f"device={name}: must be auto, cpu, cuda, cuda:N or mps")


def list_devices() -> list[str]:
    """Return the names of the devices that this machine has."""
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu"] + ["cuda", *gpus] * bool(gpus) + ["mps"] * torch.backends.mps.is_available()


def choose_device(name: str) -> str:
    """Return the device for a name; raises ConfigError if this machine does not have it."""
    available = list_devices()
    if name == "auto":
        return "cuda" if "cuda" in available else "cpu"
    if name not in available:
        raise ConfigError(
            f"device={name!r}: not available on this machine; must be one of auto, {', '.join(available)}"
        )
    return name


def check_device_map(device_map: DeviceMap, device: str) -> None:
    """Raise ConfigError unless a device map is known here, and no device is chosen beside it."""
    if device_map is None:
        return
    if device != "auto":
        raise ConfigError(
            f"device={device}: model.device_map chooses the devices of every layer; leave one of the two out"
        )
    if isinstance(device_map, str):
        if device_map not in DEVICE_MAPS:
            raise ConfigError(
                f"model.device_map={device_map}: must be one of {', '.join(DEVICE_MAPS)}, or map modules to devices"
            )
        return
    if not isinstance(device_map, Mapping) or not device_map:
        raise ConfigError(
            f"model.device_map={device_map!r}: must be one of {', '.join(DEVICE_MAPS)}, or map modules to devices"
        )
    known = [*list_devices(), _OFFLOADED]
    for module, place in device_map.items():
        if (f"cuda:{place}" if isinstance(place, int) else place) not in known:
            raise ConfigError(
                f"model.device_map: {module}={place!r} is not available on this machine; must be one of "
                f"{', '.join(known)}"
            )


def check_covers(device_map: DeviceMap, modules: Iterable[str], parameters: Iterable[str]) -> None:
    """Raise ConfigError unless a device map names modules of the network only, and covers all its parameters."""
    if not isinstance(device_map, Mapping):
        return
    known = set(modules)
    if unknown := [str(name) for name in device_map if name not in known]:
        raise ConfigError(f"model.device_map: {unknown[0]}: the network has no such module")
    for name in parameters:
        if not any(part == "" or name.startswith(f"{part}.") for part in device_map):
            raise ConfigError(f"model.device_map: gives no device for {name}")


def require_input_device(network: Any, name: str) -> None:
    """Refuse a network whose first layer is not on a device; raises ModelUnavailableError."""
    if network.device.type == "meta":
        raise ModelUnavailableError(
            f"{name}: model.device_map offloads the first layer (the embedding): put it on a device"
        )


def is_offloaded(network: Any) -> bool:
    """Return whether weights of a network are brought to its device only when they are used."""
    return any(parameter.device.type == "meta" for parameter in network.parameters())
