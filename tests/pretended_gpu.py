"""A GPU that is none: tensors of the CPU that refuse to be mixed with others, as those of a GPU do.

Values are real, so that whatever depends on them runs; only forward passes are supported.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
DEVICE = torch.device("cuda:0")
# Indices may lie on the CPU.
INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}
COPIES = {aten.copy_.default, aten._to_copy.default}


class OnGpu(Tensor):
    """A tensor whose values lie in `values`, on the CPU."""

    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)

    @staticmethod
    def __new__(cls, values):
        return Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device="meta",
        )

    def __init__(self, values):
        self.values = values

    def __repr__(self):
        return f"OnGpu({self.values})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def compute(func, args, kwargs):
    """Run an operation on the values, and refuse what a GPU refuses."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    is_on_gpu = any(isinstance(tensor, OnGpu) for tensor in tensors)
    if is_on_gpu and func not in COPIES:
        checked = [args[0], *args[2:3]] if func in INDEXING else tensors
        for tensor in checked:
            # Numbers are taken from anywhere.
            if isinstance(tensor, Tensor) and not isinstance(tensor, OnGpu) and tensor.ndim:
                raise RuntimeError(f"{func} mixes tensors of the GPU and of the CPU")
    if kwargs.get("device") is not None:
        is_on_gpu = torch.device(kwargs["device"]).type != "cpu"
        kwargs = kwargs | {"device": torch.device("cpu")}
    values, named = tree_map_only(OnGpu, lambda tensor: tensor.values, (args, kwargs))
    result = func(*values, **named)
    if func.overloadpacket.__name__.endswith("_"):
        return args[0]
    return tree_map_only(Tensor, OnGpu, result) if is_on_gpu else result


def on_gpu(tensor):
    return tensor if isinstance(tensor, OnGpu) else OnGpu(tensor.detach())


def moved(func, tensor, *rest, device=None, dtype=None, **others):
    """`to`, `cuda` and `cpu`."""
    if func is Tensor.cpu:
        device = "cpu"
    if func is Tensor.cuda:
        device, rest = DEVICE, ()
    for one in rest:
        if isinstance(one, Tensor):
            device, dtype = one.device, one.dtype
        elif isinstance(one, torch.dtype):
            dtype = one
        elif isinstance(one, str | torch.device):
            device = one
    goal = tensor.device if device is None else torch.device(device)
    values = tensor.values if isinstance(tensor, OnGpu) else tensor
    if dtype is not None and values.dtype != dtype:
        values = aten._to_copy.default(values, dtype=dtype)
    elif goal.type == tensor.device.type:
        return tensor
    return on_gpu(values) if goal.type == "cuda" else values


def attend(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """Attention by its definition: the kernels look at the device themselves."""
    if enable_gqa:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = (q @ k.transpose(-1, -2)) * (scale or q.shape[-1] ** -0.5)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        assert attn_mask.dtype == q.dtype
        scores = scores + attn_mask
    return scores.softmax(-1) @ v


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        is_on_gpu = bool(args) and isinstance(args[0], OnGpu)
        if func in (Tensor.to, Tensor.cuda, Tensor.cpu):
            return moved(func, *args, **kwargs)
        if is_on_gpu and func is Tensor.tolist:
            return args[0].values.tolist()
        if is_on_gpu and func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("a tensor of the GPU is no array")
        if is_on_gpu and func is nn.functional.scaled_dot_product_attention:
            return attend(*args, **kwargs)
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == "cuda":
            kwargs["device"] = torch.device("cpu")
            values = tree_map_only(OnGpu, lambda tensor: tensor.values, args)
            return tree_map_only(Tensor, on_gpu, func(*values, **kwargs))
        return func(*args, **kwargs)


@contextmanager
def pretended_gpu(monkeypatch) -> Iterator[torch.device]:
    """Let `cuda` be a device that tensors can be moved to."""
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    with _Functions(), _Operations(), torch.no_grad():
        yield DEVICE


def move_to_gpu(model: nn.Module) -> None:
    """Replace parameters and buffers in place, as `to` cannot for tensors of another class."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                module._parameters[name] = on_gpu(parameter)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = on_gpu(buffer)
