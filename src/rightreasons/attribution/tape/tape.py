"""One pass through a network, written down operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rightreasons.attribution.attention import multi_head_attention
from rightreasons.attribution.operators import operator_of, out_of_place
from rightreasons.attribution.tape.names import (
    CONSTANTS,
    DROPOUT,
    GATES,
    MOVES,
    NONNEGATIVE,
    READS,
    RULED,
    SHAPED_LIKE,
)
from rightreasons.attribution.tape.step import Slot, Step, filled, is_training, keeps_pixels, keeps_sign, linear_weight
from rightreasons.core import BadModel
from rightreasons.core.hooks import find_layer


class Tape(TorchFunctionMode):
    """Writes down each torch call on the image, or on what was made of it, while the network runs.

    The network is handed aliases that carry no graph; the values on the tape are on the graph if ``graph``. So a
    functional call, a module used twice, an operation in place, a ``detach`` and a custom autograd function (by the
    calls inside it) are all seen as what they compute. An operator that is not ``known`` is refused. What comparisons
    make of the image counts as constant, or is refused where it becomes a number again, without ``constant_masks``.
    """

    def __init__(
        self, inputs: Tensor, *, graph: bool, known: frozenset[str] = RULED, constant_masks: bool = True
    ) -> None:
        super().__init__()
        self._known = known
        self._constant_masks = constant_masks
        self._compared: dict[int, Tensor] = {}  # held, so that their ids stay theirs
        self.steps: list[Step] = []
        self.within: list[str] = []
        self._graph = graph
        self._aliases: list[Tensor] = []  # held, so that their ids stay theirs
        self._places: dict[int, int] = {}
        self._stale: set[int] = set()
        self.start = self._alias(Step("input", inputs, raw=True))

    def place(self, tensor: Tensor) -> int | None:
        """The step that made this tensor, or ``None`` where the tape has not seen it."""
        return self._places.get(id(tensor))

    def finished(self, last: int) -> list[Step]:
        """The steps up to this one; the tape forgets them."""
        steps = self.steps[: last + 1]
        self.steps, self._aliases, self._places, self._compared = [], [], {}, {}
        return steps

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run a call and write it down if it is about the image."""
        kwargs = kwargs or {}
        operator, in_place = operator_of(func, args, kwargs)
        if operator == "multi_head_attention_forward":
            with self:  # its parts are written down, not the whole
                return multi_head_attention(*args, **kwargs)
        if self._compared and self._about_comparison((args, kwargs)):
            return self._of_comparison(operator, func, args, kwargs)
        parents: list[int] = []
        if operator in SHAPED_LIKE:
            slotted = self._slotted(args[:1], parents) + tuple(_form(value) for value in args[1:])
            slotted_kwargs = {key: _form(value) for key, value in kwargs.items()}
        else:
            slotted, slotted_kwargs = self._slotted(args, parents), self._slotted(kwargs, parents)
        if not parents:
            return func(*args, **kwargs)
        if operator in READS or kwargs.get("out") is not None:
            raise BadModel(_unseen(operator))
        call = func
        if in_place:
            plain = out_of_place(func, slotted_kwargs)
            if plain is None or not isinstance(args[0], Tensor) or self.place(args[0]) is None:
                raise BadModel(_unseen(f"{operator} in place"))
            call, slotted_kwargs = plain
        step = Step(operator, self.steps[0].value, call, slotted, slotted_kwargs, tuple(parents), layer=self._layer())
        with torch.set_grad_enabled(self._graph):
            made = self._run(step)
        return self._overwrite(args[0], made) if in_place else made

    def _about_comparison(self, value: Any) -> bool:
        if isinstance(value, Tensor):
            return id(value) in self._compared
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
        return any(self._about_comparison(part) for part in parts)

    def _of_comparison(self, operator: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """What is made of a comparison is one, and no number."""
        made = None if operator in READS | {"__iter__"} else func(*args, **kwargs)
        parts = made if isinstance(made, tuple | list) else (made,)
        if made is None or any(isinstance(part, Tensor) and part.is_floating_point() for part in parts):
            raise BadModel(
                f"the network compares values of the image, and what the operator {operator!r} makes of the comparison "
                "has no rule here; write it as relu, clamp or maximum"
            )
        self._compared |= {id(part): part for part in parts if isinstance(part, Tensor)}
        return made

    def _layer(self) -> str | None:
        return self.within[-1] if self.within else None

    def _slotted(self, value: Any, parents: list[int]) -> Any:
        if isinstance(value, Tensor):
            place = self._places.get(id(value))
            if place is None:
                return value
            if id(value) in self._stale:
                raise BadModel(
                    "a tensor is used after an operation in place has changed its memory through another view; write "
                    "that operation without its in-place form"
                )
            parents.append(place)
            return Slot(len(parents) - 1)
        if isinstance(value, dict):
            return {k: self._slotted(v, parents) for k, v in value.items()}
        if not isinstance(value, tuple | list):
            return value
        before = len(parents)
        parts = [self._slotted(v, parents) for v in value]
        if len(parents) == before:
            return value
        return tuple(parts) if isinstance(value, tuple) else parts

    def _run(self, step: Step) -> Any:
        values = [self.steps[p].value for p in step.parents]
        if step.operator in CONSTANTS:
            return step.whole(*values)
        if step.operator in ("detach", "data"):
            step = replace(step, call=_itself, args=(Slot(0),), kwargs={})  # cuts the graph, not the computation
        if step.operator in DROPOUT and is_training(step):
            mask = step.whole(torch.ones_like(values[0]))
            step = replace(step, operator="mul", call=torch.mul, args=(Slot(0), mask), kwargs={})
        if step.operator in ("max_pool2d", "max_pool2d_with_indices"):
            output, indices = _max_pool2d(*filled(step.args, values), **filled(step.kwargs, values))
            whole = self._written(replace(step, operator="max_pool2d", call=_max_pool2d, pick=0), output, indices)
            self._written(step, indices)
            return (whole, indices) if step.operator == "max_pool2d_with_indices" else whole
        output = step.whole(*values)
        if isinstance(output, Tensor):
            return self._written(step, output)
        if isinstance(output, tuple | list) and any(isinstance(o, Tensor) for o in output):
            parts = [self._written(replace(step, pick=i), o) for i, o in enumerate(output)]
            return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
        return output

    def _written(self, step: Step, output: Tensor, indices: Tensor | None = None) -> Tensor:
        if not output.is_floating_point():
            if not self._constant_masks:
                self._compared[id(output)] = output
            return output
        if step.operator not in self._known:
            raise BadModel(_unseen(step.operator))
        parents = [self.steps[p] for p in step.parents]
        described = replace(
            step,
            value=output,
            indices=indices,
            linear=linear_weight(step),
            raw=all(p.raw for p in parents) and keeps_pixels(step),
            nonnegative=step.operator in NONNEGATIVE or (keeps_sign(step) and all(p.nonnegative for p in parents)),
            gate=step.operator in GATES or (step.operator in MOVES and all(p.gate for p in parents)),
        )
        return self._alias(described)

    def _alias(self, step: Step) -> Tensor:
        alias = step.value.detach()
        self._aliases.append(alias)
        self._places[id(alias)] = len(self.steps)
        self.steps.append(step)
        return alias

    def _overwrite(self, target: Tensor, made: Tensor) -> Tensor:
        """Let the network's own tensor become what the operation in place made of it."""
        memory = target.untyped_storage().data_ptr()
        for alias in self._aliases:
            if alias is not target and alias.untyped_storage().data_ptr() == memory:
                self._stale.add(id(alias))
        self._stale.discard(id(target))
        self._places[id(target)] = self._places[id(made)]
        target.data = made
        self._stale.discard(id(made))
        return target


@contextmanager
def watching(network: nn.Module, tape: Tape, layers: Sequence[str]) -> Iterator[None]:
    """Let the tape know while one of these layers runs.

    Raises:
        BadModel: A layer does not exist.
    """
    handles = []
    try:
        for name in layers:
            layer = find_layer(network, name)
            handles.append(layer.register_forward_pre_hook(_entering(tape, name)))
            handles.append(layer.register_forward_hook(_leaving(tape)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _entering(tape: Tape, name: str) -> Callable[[nn.Module, Any], None]:
    def hook(module: nn.Module, args: Any) -> None:
        tape.within.append(name)

    return hook


def _leaving(tape: Tape) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        tape.within.pop()

    return hook


def _unseen(operator: str) -> str:
    return (
        f"there is no way back through the operator {operator!r}: no rule is known for it; explain this network by a "
        "gradient method such as IntegratedGradients, or write the operator with others"
    )


def _max_pool2d(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Max-pooling that also says where its maxima are."""
    names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
    given = dict(zip(names, args, strict=False)) | {k: v for k, v in kwargs.items() if k != "return_indices"}
    stride = given.pop("stride", None) or given["kernel_size"]
    return F.max_pool2d(**given, stride=stride, return_indices=True)


def _itself(value: Tensor) -> Tensor:
    return value


def _form(value: Any) -> Any:
    """A tensor of which the shape and the type are kept and the values are not."""
    return value.new_zeros(()).expand(value.shape) if isinstance(value, Tensor) else value
