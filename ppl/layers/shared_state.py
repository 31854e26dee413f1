"""Store weights that a model holds under several names only once in its `state_dict`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["store_once"]


def store_once(module: nn.Module) -> None:
    """Leave the weights of `module` out of a `state_dict` that holds them under another name already.

    Files of safetensors refuse tensors under two names. Loading accepts the shortened `state_dict`: the weights come
    with the other name. A module that a model holds once is stored and loaded as usual.

    Args:
        module: the module; each of its parts gets two hooks.

    Example:
        >>> model = nn.ModuleDict({"one": nn.Linear(2, 2, bias=False)})
        >>> model["two"] = model["one"]
        >>> store_once(model["one"])
        >>> list(model.state_dict())
        ['one.weight']
        >>> model.load_state_dict(model.state_dict())
        <All keys matched successfully>
    """
    for part in module.modules():
        if not any(isinstance(hook, _FillIn) for hook in _load_hooks(part)):
            part.register_state_dict_post_hook(_drop_duplicates)  # type: ignore[no-untyped-call]
            part.register_load_state_dict_pre_hook(_FillIn())  # type: ignore[no-untyped-call]


def _load_hooks(module: nn.Module) -> list[Any]:
    return [getattr(hook, "hook", hook) for hook in module._load_state_dict_pre_hooks.values()]


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and persistent buffers of a module without its children's."""
    buffers = module.named_buffers(recurse=False)
    kept = {name: buffer for name, buffer in buffers if name not in module._non_persistent_buffers_set}
    return {**dict(module.named_parameters(recurse=False)), **kept}


def _drop_duplicates(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    names = [prefix + name for name in _own_tensors(module) if prefix + name in state]
    own = {state[name].data_ptr() for name in names if state[name].numel()}
    others = (value for name, value in state.items() if name not in names and isinstance(value, Tensor))
    if own and own <= {value.data_ptr() for value in others}:
        for name in names:
            del state[name]


class _FillIn:
    """Load hook: keep the weights loaded under the first name of a module if the second name has none."""

    def __init__(self) -> None:
        self.loaded_from: str | None = None

    def __call__(self, module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        own = {prefix + name: tensor for name, tensor in _own_tensors(module).items()}
        # BatchNorm adds a counter to a `state_dict` without one before this hook runs.
        if any(name in state and not name.endswith("num_batches_tracked") for name in own):
            self.loaded_from = prefix
        elif self.loaded_from not in (None, prefix):
            state.update({name: tensor.detach() for name, tensor in own.items()})
            self.loaded_from = None
