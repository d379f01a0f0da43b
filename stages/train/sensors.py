"""What the meter reads: this process's memory, the GPU's load and memory, torch's allocator.

A sensor may raise when it is opened and whenever it is read; the meter then
goes on without it.  So nothing here catches an error to make up a number.
NVML is the package nvidia-ml-py, imported as pynvml.  It, psutil and torch
are imported only by the sensors that need them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

RSS = "rss"
GPU_UTILISATION = "gpu_utilisation"
GPU_MEMORY = "gpu_memory"
GPU_ALLOCATED = "gpu_allocated"


class Sensor(Protocol):
    """One number that can be read again and again, from any thread."""

    def read(self) -> float: ...

    def close(self) -> None: ...


Openers = dict[str, Callable[[], Sensor]]
"""How to open each sensor, by the names above."""


def sensors_of(device: str) -> Openers:
    """The sensors of a run on torch's `device`.  Not on CUDA: memory of the process only."""
    openers: Openers = {RSS: ResidentMemory}
    if device.partition(":")[0] == "cuda":
        openers[GPU_UTILISATION] = lambda: Utilisation(device)
        openers[GPU_MEMORY] = lambda: DeviceMemory(device)
        openers[GPU_ALLOCATED] = lambda: Allocator(device)
    return openers


class ResidentMemory:
    """Resident set size of this process in bytes: threads in, child processes out."""

    def __init__(self) -> None:
        import psutil  # type: ignore[import-untyped]

        # Once: the LGR code builds a new process object for each reading.
        self._process = psutil.Process()

    def read(self) -> float:
        return float(self._process.memory_info().rss)

    def close(self) -> None:
        pass


class _Nvml:
    """NVML's handle of the GPU that torch calls `device`."""

    def __init__(self, device: str) -> None:
        import pynvml  # type: ignore[import-untyped]

        self._nvml = pynvml
        pynvml.nvmlInit()  # counted by NVML: each sensor opens and closes it for itself
        try:
            self._handle = find_gpu(device, pynvml)
        except Exception:
            pynvml.nvmlShutdown()
            raise

    def close(self) -> None:
        self._nvml.nvmlShutdown()


class Utilisation(_Nvml):
    """Per cent of the time in which the GPU ran a kernel, of any process.

    NVML averages over its own last 1/6 to 1 s, depending on the GPU.
    Phases that take turns faster than that all read as their mixture.
    """

    def read(self) -> float:
        return float(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu)


class DeviceMemory(_Nvml):
    """Bytes in use on the whole GPU, as in the paper: all processes, CUDA's contexts and
    what the driver keeps for itself included.
    """

    def read(self) -> float:
        return float(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)


class Allocator:
    """Highest number of bytes in torch's tensors on `device` since this was opened.

    The allocator keeps the maximum itself, so nothing between two readings is
    missed.  Opening resets the maximum for everyone in this process.
    """

    def __init__(self, device: str) -> None:
        import torch

        torch.cuda.init()  # type: ignore[no-untyped-call]  # there are no statistics before
        torch.cuda.reset_peak_memory_stats(device)
        self._cuda = torch.cuda
        self._device = device

    def read(self) -> float:
        return float(self._cuda.max_memory_allocated(self._device))

    def close(self) -> None:
        pass


def find_gpu(device: str, nvml: Any) -> Any:
    """NVML's handle by UUID, which torch and NVML agree upon; else by PCI address.

    Not by index: NVML counts all GPUs of the machine by PCI address, torch
    those in CUDA_VISIBLE_DEVICES, the fastest first.  Asking torch starts CUDA.
    """
    import torch

    gpu = torch.cuda.get_device_properties(torch.device(device))
    for name in (f"GPU-{gpu.uuid}", f"MIG-{gpu.uuid}"):
        try:
            return nvml.nvmlDeviceGetHandleByUUID(name)
        except nvml.NVMLError:
            continue
    address = _pci_address(gpu)
    if address is None:
        raise LookupError(f"NVML has no GPU {gpu.uuid}, which is torch's {device}")
    return nvml.nvmlDeviceGetHandleByPciBusId(address)


def _pci_address(gpu: Any) -> str | None:
    """domain:bus:device.function in hexadecimal; older versions of torch do not tell."""
    if not hasattr(gpu, "pci_bus_id"):
        return None
    return f"{gpu.pci_domain_id:08x}:{gpu.pci_bus_id:02x}:{gpu.pci_device_id:02x}.0"


def synchroniser(device: str) -> Callable[[], None] | None:
    """Waits until the GPU has done all that was asked of it; None where nothing runs behind."""
    if device.partition(":")[0] != "cuda":
        return None
    import torch

    return (lambda: torch.cuda.synchronize(device)) if torch.cuda.is_available() else None
