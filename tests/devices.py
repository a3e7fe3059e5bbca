"""A device without float64, such as Apple's MPS, played on the CPU."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

FAKE = torch.device("meta")  # tensors on it hold CPU tensors inside
COPIES = (torch.ops.aten._to_copy.default,)


class OnDevice(torch.Tensor):
    """A tensor of that device."""

    @staticmethod
    def __new__(cls, inner):
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=FAKE, strides=inner.stride(), storage_offset=0
        )
        made.inner = inner
        return made

    def __repr__(self):
        return f"OnDevice({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class WithoutFloat64(TorchDispatchMode):
    """Within the block, whatever is made on the device is refused in float64."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        known = any(isinstance(x, OnDevice) for x in torch.utils._pytree.tree_leaves((args, kwargs)))
        return run(func, args, kwargs) if known or on_device(kwargs.get("device")) else func(*args, **kwargs)


def on_device(device):
    return device is not None and torch.device(device).type == FAKE.type


def run(func, args, kwargs):
    """The CPU's result, on the device unless it was copied away from there."""
    moved = func in COPIES and kwargs.get("device") is not None and not on_device(kwargs["device"])
    if on_device(kwargs.get("device")):
        kwargs = {**kwargs, "device": torch.device("cpu")}
    plain_args, plain_kwargs = tree_map(lambda x: x.inner if isinstance(x, OnDevice) else x, (args, kwargs))
    result = func(*plain_args, **plain_kwargs)
    if func._schema.is_mutable and args and isinstance(args[0], OnDevice):
        return args[0]  # changed in place
    return result if moved else tree_map(put, result)


def put(x):
    if not isinstance(x, torch.Tensor):
        return x
    if x.dtype == torch.float64:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
    return OnDevice(x)


def move(model):
    """Parameters and buffers of a float32 model to the device, in place; tied ones stay tied."""
    moved = {
        id(parameter): torch.nn.Parameter(put(parameter.detach()), parameter.requires_grad)
        for parameter in model.parameters()
    }
    for module in model.modules():
        for name, parameter in module._parameters.items():
            module._parameters[name] = moved.get(id(parameter))
        for name, buffer in module._buffers.items():
            module._buffers[name] = put(buffer)
    return model
