"""The variables of a run: layers that are shared and never changed.

A `Context` is what one branch sees. Publishing makes a new one on top of it; nothing is copied, and
handing one on is handing on a reference. Where branches meet, their *changes* since they parted
are merged::

    run ── a ──┬── b ── c ──┐
               └── d ───────┴── merged: all of a, b, c and what d has changed

Rules:
- The last writer wins; the branches come in the order in which they arrived.
- Where both sides have changed a variable and both have made it a dict, the dicts are merged, in
  all depths. A variable that only one side has changed is taken from there as it is.

Lookups go through at most `LAYERS_MAX` dicts; the layers below are made one. So a lookup costs the
same whatever the number of variables and of publishes.

Mirror: tests/worker/flow/test_context.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

LAYERS_MAX: Final = 8

Change = tuple[int, Mapping[str, Any]]
"""A number that no other change of the run has, and the variables that were published."""


class Context:
    """What one branch sees. Immutable; values are shared with others and must not be changed.

    Attributes:
        parent: What it was before the changes, None for the first of a run.
        changes: What was published on top of the parent, in order; at a join what the others bring.
        effect: What variables have become by the changes.
        depth: Steps from the first.
    """

    __slots__ = ("_layers", "changes", "depth", "effect", "parent")

    def __init__(
        self,
        parent: "Context | None",
        changes: Sequence[Change],
        effect: Mapping[str, Any],
    ) -> None:
        """Stack changes on a parent; `effect` is what variables have become by them."""
        self.parent: Context | None = parent
        self.changes = tuple(changes)
        self.effect = effect
        self.depth: int = 0 if parent is None else parent.depth + 1
        below: tuple[Mapping[str, Any], ...] = () if parent is None else parent._layers
        self._layers: tuple[Mapping[str, Any], ...] = (effect, *below)  # the topmost first
        if len(self._layers) > LAYERS_MAX:
            self._layers = (self.variables(),)

    @classmethod
    def first(cls, variables: Mapping[str, Any]) -> "Context":
        """Make the first of a run."""
        return cls(None, (), variables)

    @classmethod
    def view(cls, below: "Context", variables: Mapping[str, Any]) -> "Context":
        """Lay variables over a context for as long as they are made: they may still change.

        Not to be handed on: its changes have no numbers.
        """
        made = cls.__new__(cls)
        made.parent, made.changes, made.effect = below, (), variables
        made.depth = below.depth + 1
        made._layers = (variables, *below._layers)
        return made

    def get(self, name: str, default: Any) -> Any:
        """Look a variable up. Guarded by ``scripts/bench workflow``."""
        for layer in self._layers:
            if name in layer:
                return layer[name]
        return default

    def variables(self) -> dict[str, Any]:
        """Give all variables, in a new dict whose values are shared."""
        together: dict[str, Any] = {}
        for layer in reversed(self._layers):
            together.update(layer)
        return together

    def publish(self, number: int, variables: Mapping[str, Any]) -> "Context":
        """Give what the branch sees after it has published; itself if that is nothing."""
        return Context(self, ((number, variables),), variables) if variables else self


def merge(contexts: Iterable[Context]) -> Context:
    """Merge branches that meet, in the order in which they arrived.

    Costs as much as what the branches have published since they parted.
    """
    arrived = iter(contexts)
    merged = next(arrived)
    for other in arrived:
        merged = _merge_two(merged, other)
    return merged


def _merge_two(base: Context, other: Context) -> Context:
    if other is base:
        return base
    ours, theirs = _since_they_parted(base, other)
    known = {number for number, _ in ours}
    brought = [change for change in theirs if change[0] not in known]
    if not brought:
        return base
    changed_here = {name for _, variables in ours for name in variables}
    effect: dict[str, Any] = {}
    for name in {name: None for _, variables in brought for name in variables}:
        value = other.get(name, None)
        effect[name] = merge_values(base.get(name, None), value) if name in changed_here else value
    return Context(base, brought, effect)


def _since_they_parted(one: Context, other: Context) -> tuple[list[Change], list[Change]]:
    """Give the changes of each that lie above what both stand on, in order."""
    above_one: list[Sequence[Change]] = []
    above_other: list[Sequence[Change]] = []
    left: Context | None = one
    right: Context | None = other
    while left is not right:
        assert left is not None
        assert right is not None, "contexts of two runs can't be merged"
        if left.depth >= right.depth:
            above_one.append(left.changes)
            left = left.parent
        else:
            above_other.append(right.changes)
            right = right.parent
    return _in_order(above_one), _in_order(above_other)


def _in_order(above: list[Sequence[Change]]) -> list[Change]:
    return [change for changes in reversed(above) for change in changes]


def merge_values(below: Any, above: Any) -> Any:
    """Lay one value over another: dicts are merged in all depths, all else is replaced."""
    if type(below) is not dict or type(above) is not dict:
        return above
    merged = dict(below)
    for name, value in above.items():
        merged[name] = merge_values(merged[name], value) if name in merged else value
    return merged
