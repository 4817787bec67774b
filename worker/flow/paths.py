"""Direct getters for the plain expressions: paths, comparisons, ``and``, ``or``, ``not``.

Most expressions are such as ``ctx().app.url`` or ``succeeded() and ctx('n') < 3``. For these a
getter is built from Jinja2's own syntax tree, several times faster than Jinja2's code. It knows
only the plain case: a key that is there, an index within a list. On all else it raises, and whoever
called it asks Jinja2, whose word is final. So both agree on every input: a getter answers only
where a mapping has the key (which goes before methods in our sandbox) or the list the element.

Mirror: tests/worker/flow/test_paths.py.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from jinja2 import nodes

from .measure import INTEGER_MAX, INTEGER_MIN
from .scope import ABSENT, FUNCTION_NAMES, Scope

Getter = Callable[[Scope], Any]


class NotPlainError(Exception):
    """The getter does not know: ask Jinja2."""


def getter_for(node: nodes.Expr) -> Getter | None:
    """Build a getter for an expression, None where it is not plain."""
    if isinstance(node, nodes.Const):
        return _constant(node.value) if _fits(node.value) else None
    if isinstance(node, nodes.Name):
        return _name(node.name)
    if isinstance(node, nodes.Call):
        return _call(node)
    if isinstance(node, nodes.Getattr):
        return _step(node.node, node.attr)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return _step(node.node, node.arg.value)
    if isinstance(node, nodes.And | nodes.Or):
        return _either(node)
    if isinstance(node, nodes.Not):
        return _not(node)
    if isinstance(node, nodes.Compare):
        return _comparison(node)
    if isinstance(node, nodes.Add | nodes.Sub):
        return _arithmetic(node)
    if isinstance(node, nodes.Filter) and node.name in ("length", "count") and node.node:
        return _length(node.node)
    return None


def _fits(value: Any) -> bool:
    return type(value) is not int or INTEGER_MIN <= value <= INTEGER_MAX


def _constant(value: Any) -> Getter:
    return lambda scope: value


def _name(name: str) -> Getter | None:
    if name == "index":
        return _index
    if name in FUNCTION_NAMES:
        return None
    return _variable(name)


def _index(scope: Scope) -> Any:
    if scope.index is ABSENT:
        raise NotPlainError
    return scope.index


def _variable(name: str) -> Getter:
    def get(scope: Scope) -> Any:
        value = scope.context.get(name, ABSENT)
        if value is ABSENT:
            raise NotPlainError
        return value

    return get


def _call(node: nodes.Call) -> Getter | None:
    if not isinstance(node.node, nodes.Name) or node.kwargs or node.dyn_args or node.dyn_kwargs:
        return None
    name = node.node.name
    if not node.args:
        return _CALLS.get(name)
    argument = node.args[0]
    if len(node.args) > 1 or not isinstance(argument, nodes.Const):
        return None
    if not isinstance(argument.value, str):
        return None
    if name == "ctx":
        return _variable(argument.value)
    if name == "item":
        return _step_from(_item, argument.value)
    return None


def _item(scope: Scope) -> Any:
    if scope.item is ABSENT:
        raise NotPlainError
    return scope.item


def _result(scope: Scope) -> Any:
    if scope.result is ABSENT:
        raise NotPlainError
    return scope.result


_CALLS: Final[Mapping[str, Getter]] = {
    "item": _item,
    "result": _result,
    "succeeded": Scope.succeeded,
    "failed": Scope.failed,
    "completed": Scope.completed,
    "timed_out": Scope.timed_out,
}


def _step(base: nodes.Expr, key: Any) -> Getter | None:
    if isinstance(base, nodes.Call) and not base.args and not base.kwargs:
        called = base.node
        if isinstance(called, nodes.Name) and called.name == "ctx":
            plain = not base.dyn_args and not base.dyn_kwargs and isinstance(key, str)
            return _variable(key) if plain else None
    below = getter_for(base)
    return None if below is None else _step_from(below, key)


def _step_from(below: Getter, key: Any) -> Getter | None:
    if type(key) is str:

        def get(scope: Scope) -> Any:
            value = below(scope)
            if type(value) is not dict or key not in value:
                raise NotPlainError
            return value[key]

        return get
    if type(key) is int:

        def get_element(scope: Scope) -> Any:
            value = below(scope)
            if type(value) is not list or not -len(value) <= key < len(value):
                raise NotPlainError
            return value[key]

        return get_element
    return None


def _either(node: nodes.And | nodes.Or) -> Getter | None:
    left, right = getter_for(node.left), getter_for(node.right)
    if left is None or right is None:
        return None
    if isinstance(node, nodes.And):
        return lambda scope: left(scope) and right(scope)
    return lambda scope: left(scope) or right(scope)


def _not(node: nodes.Not) -> Getter | None:
    inner = getter_for(node.node)
    return None if inner is None else lambda scope: not inner(scope)


def _comparison(node: nodes.Compare) -> Getter | None:
    if len(node.ops) != 1:
        return None
    compare = _OPERATORS.get(node.ops[0].op)
    left, right = getter_for(node.expr), getter_for(node.ops[0].expr)
    if compare is None or left is None or right is None:
        return None
    return lambda scope: compare(left(scope), right(scope))


def _arithmetic(node: nodes.Add | nodes.Sub) -> Getter | None:
    compute = operator.add if isinstance(node, nodes.Add) else operator.sub
    left, right = getter_for(node.left), getter_for(node.right)
    if left is None or right is None:
        return None

    def get(scope: Scope) -> Any:
        one, other = left(scope), right(scope)
        if type(one) not in _NUMBERS or type(other) not in _NUMBERS:
            raise NotPlainError
        value = compute(one, other)
        if not _fits(value):
            raise NotPlainError
        return value

    return get


def _length(node: nodes.Expr) -> Getter | None:
    inner = getter_for(node)
    if inner is None:
        return None

    def get(scope: Scope) -> Any:
        value = inner(scope)
        if type(value) not in _SIZED:
            raise NotPlainError
        return len(value)

    return get


_NUMBERS: Final = frozenset({int, float})
_SIZED: Final = frozenset({str, list, dict})
_OPERATORS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
    "in": lambda one, other: one in other,
    "notin": lambda one, other: one not in other,
}
