"""The one door between NumPy and the array frameworks (torch, JAX).

The core of wellkit computes in NumPy. Where an array has to become a tensor, or an operation has to work on
whatever the caller handed in, it goes through here, so that no other core module imports torch or JAX.
"""

from __future__ import annotations

import importlib
import mmap
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from wellkit.errors import ArgumentError, MissingDependencyError

Framework = Literal["torch", "numpy", "jax"]
FRAMEWORKS: tuple[Framework, ...] = ("torch", "numpy", "jax")
Array = Any  # numpy.ndarray, torch.Tensor or jax.Array


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Import an optional library.

    Raises:
        MissingDependencyError: it is not installed; the message names the extra to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{purpose} needs {module}, which is not installed; run: pip install 'wellkit[{extra}]'"
        ) from error


def check_framework(framework: str) -> Framework:
    """Return `framework` if it is known and installed; raise ArgumentError or MissingDependencyError else."""
    if framework not in FRAMEWORKS:
        raise ArgumentError(f"framework={framework!r} is unknown; choose one of {', '.join(FRAMEWORKS)}")
    if framework == "torch":
        require("torch", extra="torch", purpose="framework='torch' (the default; framework='numpy' needs nothing)")
    elif framework == "jax":
        require("jax", extra="jax", purpose="framework='jax'")
    return framework


def framework_of(array: Array) -> Framework:
    """The framework an array belongs to; anything that is neither torch nor JAX counts as NumPy."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return "torch"
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(array, jax.Array):
        return "jax"
    return "numpy"


def from_numpy(array: np.ndarray, framework: Framework) -> Array:
    """`array` in `framework`; torch shares the memory where the array is writable, JAX copies."""
    if framework == "numpy":
        return array
    if framework == "torch":
        torch = importlib.import_module("torch")
        if not array.flags.writeable:
            array = array.copy()  # torch has no read-only tensors: sharing would let a write through
        return torch.from_numpy(array)
    return importlib.import_module("jax.numpy").asarray(array)


def to_numpy(array: Array) -> np.ndarray:
    """`array` as NumPy, on the host; torch shares the memory where it can."""
    if framework_of(array) == "torch":
        return array.detach().cpu().numpy()  # type: ignore[no-any-return]
    return np.asarray(array)


def like(values: np.ndarray, reference: Array) -> Array:
    """`values` in the framework (and on the device) of `reference`."""
    framework = framework_of(reference)
    converted = from_numpy(np.ascontiguousarray(values), framework)
    return converted.to(reference.device) if framework == "torch" else converted


def concatenate(arrays: Sequence[Array], axis: int) -> Array:
    """Arrays of one framework joined along `axis`; dtypes are promoted by the framework's own rules."""
    framework = framework_of(arrays[0])
    if framework == "torch":
        return importlib.import_module("torch").cat(list(arrays), dim=axis)
    if framework == "jax":
        return importlib.import_module("jax.numpy").concatenate(list(arrays), axis=axis)
    return np.concatenate(list(arrays), axis=axis)


class SharedCounter:
    """A number that worker processes see change.

    It lies in memory that forked processes share; with torch, spawned workers of a DataLoader share it too. Pickled by
    other means it is a plain number.
    """

    def __init__(self, framework: Framework, value: int = 0) -> None:
        self._framework = framework
        self._cell: Any = (
            from_numpy(np.zeros(1, dtype=np.int64), "torch").share_memory_()
            if framework == "torch"
            else np.frombuffer(mmap.mmap(-1, 8), dtype=np.int64)
        )
        self._numbers: np.ndarray = to_numpy(self._cell)
        self.value = value

    def __getstate__(self) -> dict[str, Any]:
        # A tensor goes to a torch worker as the same memory; a map cannot go anywhere but through a fork.
        return {"framework": self._framework, "cell": self._cell if self._framework == "torch" else self.value}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["framework"] == "torch":
            self._framework, self._cell = state["framework"], state["cell"]
            self._numbers = to_numpy(self._cell)
        else:
            self.__init__(state["framework"], state["cell"])  # type: ignore[misc]

    @property
    def value(self) -> int:
        """The number."""
        return int(self._numbers[0])

    @value.setter
    def value(self, number: int) -> None:
        self._numbers[0] = number


def register_collate(kind: type, function: Callable[..., Any]) -> None:
    """Let torch's `default_collate` call `function(batch, collate_fn_map=...)` for batches of `kind`."""
    importlib.import_module("torch.utils.data._utils.collate").default_collate_fn_map.setdefault(kind, function)


def in_worker_process() -> bool:
    """Whether this is a worker process of a torch DataLoader."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.utils.data.get_worker_info() is not None


def shared_array(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[np.ndarray, Array]:
    """Uninitialized shared memory, as a NumPy array and as the torch tensor it belongs to."""
    torch = importlib.import_module("torch")
    count = int(np.prod(shape, dtype=np.int64))
    kind = from_numpy(np.empty(0, dtype=dtype), "torch").dtype
    storage = torch.UntypedStorage._new_shared(count * dtype.itemsize)
    tensor = torch.empty(0, dtype=kind).set_(storage, 0, shape)
    return tensor.numpy(), tensor


def stack(arrays: Sequence[Array]) -> Array:
    """Arrays of one framework and shape along a new first axis."""
    framework = framework_of(arrays[0])
    if framework == "torch":
        return importlib.import_module("torch").stack(list(arrays))
    if framework == "jax":
        return importlib.import_module("jax.numpy").stack(list(arrays))
    return np.stack(list(arrays))
