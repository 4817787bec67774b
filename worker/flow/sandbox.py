"""Jinja2's expressions in a sandbox: what they may call, and how much they may make.

Everything is allowed by name, nothing by default: attributes of values by their type, filters by
the lists below. What could make much of little (``*``, ``**``, ``+``, ``%``, widths, joins) is
measured before it is done, and the work of all filters of one evaluation is counted, so that an
expression ends with an error where it would end the worker.

A key of a mapping goes before a method of the same name, by dot and by bracket.

Mirror: tests/worker/flow/test_sandbox.py.
"""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final

import msgspec
from jinja2 import StrictUndefined, UndefinedError, nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.nodes import EvalContext
from jinja2.runtime import Context as JinjaContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.utils import _PassArg, pass_context
from jinja2.visitor import NodeTransformer

from .limits import ARGUMENT_MAX, ELEMENTS_MAX, INTEGER_BITS_MAX, WORK_MAX
from .measure import SizeError, check_elements, check_text, plain, text_of

# fmt: off
_STRING: Final = frozenset((
    "capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii",
    "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isspace", "istitle", "isupper",
    "join", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind",
    "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip",
    "swapcase", "title", "upper",
))
_MAPPING: Final = frozenset(("get", "items", "keys", "values"))
_LIST: Final = frozenset(("count", "index"))
_NUMBER: Final = frozenset(("bit_length", "is_integer"))

_FILTERS: Final = (
    "abs", "batch", "capitalize", "center", "count", "d", "default", "dictsort", "filesizeformat",
    "first", "float", "groupby", "indent", "int", "items", "last", "length", "list", "lower", "map",
    "max", "min", "reject", "rejectattr", "reverse", "round", "select", "selectattr", "slice",
    "sort", "striptags", "title", "trim", "truncate", "unique", "upper", "urlencode",
    "wordcount", "wordwrap",
)
# Those that take whatever they are given for text.
_TEXT_FILTERS: Final = frozenset((
    "capitalize", "center", "indent", "lower", "striptags", "title", "trim", "truncate", "upper",
    "wordcount", "wordwrap",
))
# fmt: on
# Those that take a microsecond for each character.
_SLOW_FILTERS: Final = frozenset({"striptags", "title", "urlencode", "wordwrap"})
# Those that may repeat a text that they are given for each line or element.
_REPEATING: Final = frozenset({"indent", "wordwrap"})


class Environment(ImmutableSandboxedEnvironment):
    """The one environment of all expressions."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=False, optimized=False)
        self.globals = {}
        self.shared_eval_context = EvalContext(self)
        self.filters = {name: _measured(name, FILTERS[name]) for name in _FILTERS}
        self.filters |= {
            "join": _join,
            "replace": _replace,
            "string": _text,
            "sum": _sum,
            "tojson": _to_json,
        }
        tests: Mapping[str, Any] = TESTS
        self.tests = {name: _measured_test(function) for name, function in tests.items()}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allow the methods that neither change a value nor make much of little."""
        return attr in _methods_of(obj)

    def wrap_str_format(self, value: Any) -> None:
        """Let ``format`` be a method like others, which is not allowed: widths are not measured."""
        return

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Read ``obj.attribute``: a key of a mapping, else a method."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def call(self, context: Any, callee: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function; those of text that can make much are done by ours."""
        owner = getattr(callee, "__self__", None)
        if isinstance(owner, str):
            name = callee.__name__
            if name == "join" and len(args) == 1:
                return _join(context, args[0], owner)
            if name == "replace":
                return _replace(context, owner, *args, **kwargs)
            if name in _SPLITTING:
                separator = args[0] if args else kwargs.get("sep")
                check_elements(_count_parts(owner, separator))
        return super().call(context, callee, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Do an operation that may make much, if it does not make too much."""
        _CHECKS[operator](left, right)
        return self.binop_table[operator](left, right)


_SPLITTING: Final = frozenset({"rsplit", "split", "splitlines"})


def _count_parts(text: str, separator: Any) -> int:
    """Tell how many parts a text has at most when it is split."""
    if isinstance(separator, str) and separator:
        return text.count(separator) + 1
    return len(text) // 2 + 1


class EvaluationContext(JinjaContext):
    """The variables of one evaluation, looked up when they are asked for.

    Attributes:
        lookup: Name to value, or Jinja2's ``missing``.
        work: What filters have looked at, as `WORK_MAX` counts it.
    """

    def __init__(self, environment: Environment, lookup: Callable[[str], Any]) -> None:
        # What the base class sets, without the objects that it makes anew: this is half the cost
        # of a small expression.
        self.environment = environment
        self.eval_ctx = environment.shared_eval_context
        self.parent = {}
        self.vars = {}
        self.exported_vars = set()
        self.name = None
        self.blocks = {}
        self.lookup = lookup
        self.work = 0

    def resolve_or_missing(self, key: str) -> Any:
        """Find a variable; called once for each name in an expression."""
        return self.lookup(key)

    def spend(self, work: int) -> None:
        """Count work.

        Raises:
            SizeError: It has become too much.
        """
        self.work += work
        if self.work > WORK_MAX:
            raise SizeError("it would take too long: its filters go over too much")


class BoundConcatenation(NodeTransformer):
    """Turns ``a ~ b`` into a filter of ours, for Jinja2 lets nobody measure it."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """Rewrite one."""
        inner = self.generic_visit(node)
        assert isinstance(inner, nodes.Concat)
        parts = nodes.List(inner.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "join", [], [], None, None, lineno=node.lineno)


def _methods_of(value: Any) -> frozenset[str]:
    if isinstance(value, str):
        return _STRING
    if isinstance(value, Mapping):
        return _MAPPING
    if isinstance(value, (list, tuple)):
        return _LIST
    if isinstance(value, (int, float)):
        return _NUMBER
    return frozenset()


def _check_product(left: Any, right: Any) -> None:
    for value, times in ((left, right), (right, left)):
        if not isinstance(times, int):
            continue
        if isinstance(value, (str, bytes)):
            check_text(len(value) * max(times, 0))
        elif isinstance(value, (list, tuple)):
            check_elements(len(value) * max(times, 0))
        elif isinstance(value, int):
            _check_bits(value.bit_length() + times.bit_length())


def _check_power(base: Any, exponent: Any) -> None:
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0:
        _check_bits(base.bit_length() * exponent)


def _check_sum(left: Any, right: Any) -> None:
    if isinstance(left, str) and isinstance(right, str):
        check_text(len(left) + len(right))
    elif isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        check_elements(len(left) + len(right))


def _check_remainder(left: Any, right: Any) -> None:
    if isinstance(left, (str, bytes)):
        raise SecurityError("formatting by % is not allowed: put the parts together with ~")


def _check_bits(bits: int) -> None:
    if bits > INTEGER_BITS_MAX:
        raise SizeError(f"a number of {bits} bits is too large, the limit is {INTEGER_BITS_MAX}")


_CHECKS: Final[Mapping[str, Callable[[Any, Any], None]]] = {
    "+": _check_sum,
    "*": _check_product,
    "**": _check_power,
    "%": _check_remainder,
}


def _measured(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter of Jinja2's: arguments are checked before, its result's length after."""
    passed = _PassArg.from_obj(function)
    as_text = name in _TEXT_FILTERS
    repeating = name in _REPEATING
    slow = name in _SLOW_FILTERS

    @pass_context
    def measured(context: EvaluationContext, value: Any, *args: Any, **kwargs: Any) -> Any:
        if as_text:
            value = text_of(value)
        work = len(value) if slow and isinstance(value, str) else _size(value)
        for argument in (*args, *kwargs.values()):
            _check_argument(argument)
            if repeating and isinstance(argument, str):
                check_text((value.count("\n") + len(value) // 2 + 1) * len(argument))
            if repeating and isinstance(argument, int):
                check_text((value.count("\n") + 1) * argument)
        context.spend(work)
        if passed is _PassArg.context:
            made = function(context, value, *args, **kwargs)
        elif passed is _PassArg.eval_context:
            made = function(context.eval_ctx, value, *args, **kwargs)
        elif passed is _PassArg.environment:
            made = function(context.environment, value, *args, **kwargs)
        else:
            made = function(value, *args, **kwargs)
        return _bounded(made)

    return measured


def _measured_test(function: Callable[..., bool]) -> Callable[..., bool]:
    """Wrap a test of Jinja2's: ``select('in', …)`` goes over all for each."""
    passed = _PassArg.from_obj(function)

    @pass_context
    def measured(context: EvaluationContext, value: Any, *args: Any) -> bool:
        context.spend(_size(value) + sum(map(_size, args)))
        if passed is _PassArg.environment:
            return function(context.environment, value, *args)
        return function(value, *args)

    return measured


def _bounded(made: Any) -> Any:
    """Give a filter's result; what comes element by element is made a list, up to the limit."""
    if isinstance(made, str):
        check_text(len(made))
    elif hasattr(made, "__next__"):
        made = list(islice(made, ELEMENTS_MAX + 1))
        check_elements(len(made))
    return made


def _size(value: Any) -> int:
    """Tell what going over a value counts as work."""
    if isinstance(value, str):
        return len(value) // 64 + 1
    try:
        return len(value) + 1
    except (TypeError, UndefinedError):  # the filter says what it thinks of them
        return 1


def _check_argument(argument: Any) -> None:
    if isinstance(argument, int) and abs(argument) > ARGUMENT_MAX:
        raise SizeError(f"{argument} is too much for a filter, the limit is {ARGUMENT_MAX}")


@pass_context
def _join(context: EvaluationContext, value: Any, d: str = "", attribute: Any = None) -> str:
    if attribute is not None:
        value = context.environment.call_filter("map", value, [], {"attribute": attribute}, context)
    parts = [text_of(each) for each in islice(value, ELEMENTS_MAX + 1)]
    check_elements(len(parts))
    separator = text_of(d)
    length = sum(map(len, parts)) + len(separator) * len(parts)
    check_text(length)
    context.spend(len(parts))
    return separator.join(parts)


@pass_context
def _replace(context: EvaluationContext, s: Any, old: str, new: str, count: int = -1) -> str:
    text, old, new = text_of(s), text_of(old), text_of(new)
    found = text.count(old)
    if count is not None and count >= 0:
        found = min(found, count)
    check_text(len(text) + found * len(new))
    context.spend(_size(text))
    return text.replace(old, new, -1 if count is None else count)


@pass_context
def _sum(
    context: EvaluationContext, iterable: Any, attribute: Any = None, start: float = 0
) -> float:
    """Add numbers up, and numbers only: lists would grow with each."""
    if attribute is not None:
        iterable = context.environment.call_filter(
            "map", iterable, [], {"attribute": attribute}, context
        )
    numbers = [start, *islice(iterable, ELEMENTS_MAX + 1)]
    check_elements(len(numbers))
    context.spend(len(numbers))
    for each in numbers:
        if not isinstance(each, (int, float)):
            raise TypeError(f"sum: {type(each).__name__} is no number")
    total: float = sum(numbers)
    return total


@pass_context
def _text(context: EvaluationContext, value: Any) -> str:
    text = text_of(value)
    context.spend(_size(text))
    return text


@pass_context
def _to_json(context: EvaluationContext, value: Any, indent: int | None = None) -> str:
    """Give JSON as it is: Jinja2's own is for HTML."""
    _check_argument(indent)
    value = plain(value)
    encoded = msgspec.json.encode(value)
    if indent is not None:
        if not 0 <= indent <= 16:
            raise SizeError(f"tojson: an indent of {indent} is not within 0 to 16")
        check_text(len(encoded) * (indent + 2))
        encoded = msgspec.json.format(encoded, indent=indent)
    check_text(len(encoded))
    context.spend(len(encoded) // 64)
    return encoded.decode()
