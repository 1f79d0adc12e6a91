"""The shapes that a user gives to inputs whose model leaves them open, as `name:224,224,3` or without a name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from tfq.errors import UserError

_FORM = re.compile(r"(?:(?P<name>.+):)?(?P<sizes>[1-9][0-9]{0,8}(?:,[1-9][0-9]{0,8})*)")


@dataclasses.dataclass(frozen=True)
class InputShapes:
    """Shapes of one sample by the name of the input; "" names the only input."""

    by_name: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, texts: Sequence[str]) -> InputShapes:
        """Raises UserError for a text that is no shape, or a second one for an input."""
        found: dict[str, tuple[int, ...]] = {}
        for text in texts:
            form = _FORM.fullmatch(text)
            if form is None:
                raise UserError(
                    f"`input_shape` is {text!r}; it must be the sizes of one sample, without the batch, as 224,224,3 or"
                    " image:224,224,3"
                )
            name = form["name"] or ""
            if name in found:
                raise UserError(f"`input_shape` gives two shapes to the input {name!r}; leave one of them out")
            found[name] = tuple(map(int, form["sizes"].split(",")))
        return cls(found)

    def check(self, inputs: Sequence[str]) -> None:
        """Raise UserError for a name that is none of these inputs."""
        for name in self.by_name:
            if name and name not in inputs:
                raise UserError(f"`input_shape` names the input {name!r}; the model has {', '.join(inputs)}")
            if not name and len(inputs) > 1:
                raise UserError(
                    f"`input_shape` names no input, and the model has {', '.join(inputs)}; write `{inputs[0]}` and a"
                    " colon in front"
                )

    def of(self, name: str, declared: Sequence[int | None]) -> tuple[int, ...]:
        """The shape of an input of which the model declares this one, None for what it leaves open.

        Raises UserError where the two do not go together, or something stays open.
        """
        given = self.by_name.get(name, self.by_name.get(""))
        known = ", ".join("?" if size is None else str(size) for size in declared)
        if given is None:
            if None not in declared:
                return tuple(size for size in declared if size is not None)
            example = ",".join(str(size or (224 if len(declared) == 3 else 128)) for size in declared)
            raise UserError(
                f"Input {name!r} cannot be taken: its shape is ({known}), and only the batch axis may be open; give it"
                f" one, as `input_shape='{name}:{example}'`"
            )
        if len(given) != len(declared) or any(d not in (None, g) for d, g in zip(declared, given, strict=True)):
            shown = ", ".join(map(str, given))
            raise UserError(f"`input_shape` gives the input {name!r} the shape ({shown}); the model declares ({known})")
        return given


def as_texts(value: object) -> object:
    """What a program gives, {"image": (224, 224, 3)} or (224, 224, 3), as texts; anything else as it is."""
    if isinstance(value, Mapping):
        return tuple(f"{name}:{','.join(map(str, shape))}" for name, shape in value.items())
    if isinstance(value, (list, tuple)) and value and all(isinstance(size, int) for size in value):
        return (",".join(map(str, value)),)
    return value
