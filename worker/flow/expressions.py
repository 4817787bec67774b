"""Templates: values of a definition in which ``{{ … }}`` stands for something.

A template is compiled once, with the plan. Evaluating it is one pass: what a value holds is never
looked at for more ``{{``. A text that is one expression gives that expression's value with its
type; in a longer text values become text. Lists and dicts are templates of templates.

Mirror: tests/worker/flow/test_expressions.py.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from jinja2 import TemplateError, nodes
from jinja2.environment import Template as JinjaTemplate
from jinja2.parser import Parser

from .limits import EXPRESSION_CHARS_MAX
from .measure import check_text, plain, text_of
from .paths import Getter, getter_for
from .sandbox import BoundConcatenation, Environment, EvaluationContext
from .scope import FUNCTION_NAMES, Scope

_ENVIRONMENT: Final = Environment()
_RESULT: Final = "_result"

# What may lie within an expression: text in quotes, brackets, the end, anything else.
_TOKEN: Final = re.compile(
    r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[\[({]|\}\}|[\])}]|[^'"\[\](){}]+|.""", re.DOTALL
)


class ExpressionError(ValueError):
    """An expression is wrong as written.

    Attributes:
        message: What is wrong and where in the text.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class EvaluationError(ValueError):
    """An expression could not be evaluated.

    Attributes:
        message: Why, with the expression.
        path: Where in the template: keys and indexes, outermost first.
    """

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.path = path


class Reference(msgspec.Struct, frozen=True):
    """A variable that an expression names.

    Attributes:
        name: Of the variable.
        required: Whether the expression fails where there is none.
    """

    name: str
    required: bool


class Template:
    """A value of a definition, compiled.

    Attributes:
        evaluate: ``evaluate(scope)`` gives the value, which may be shared and must not be changed.
            Raises `EvaluationError`.
        constant: Whether it is the same everywhere.
        references: The variables that it names.
    """

    __slots__ = ("constant", "evaluate", "references")

    def __init__(
        self,
        evaluate: Callable[[Scope], Any],
        references: tuple[Reference, ...] = (),
        *,
        constant: bool = False,
    ) -> None:
        self.evaluate = evaluate
        self.references = references
        self.constant = constant


def is_true(template: Template, scope: Scope) -> bool:
    """Evaluate a condition.

    Raises:
        EvaluationError: It can't be evaluated, or its value is neither true nor false, such as an
            array.
    """
    value = template.evaluate(scope)
    try:
        return bool(value)
    except ValueError as error:
        raise EvaluationError(f"{type(value).__name__} is neither true nor false") from error


def compile_template(value: Any) -> Template:
    """Compile a value of a definition; 100 us to 1 ms for each expression in it.

    Raises:
        ExpressionError: An expression in it is wrong.
    """
    if isinstance(value, str):
        return _compile_text(value)
    if isinstance(value, dict):
        return _compile_dict(value)
    if isinstance(value, list):
        return _compile_list(value)
    return _constant(value)


def is_expression(text: str) -> bool:
    """Tell whether a text has ``{{``, so that only a run knows its value."""
    return "{{" in text


def _constant(value: Any) -> Template:
    return Template(lambda scope: value, constant=True)


def _compile_dict(value: dict[str, Any]) -> Template:
    parts = {name: compile_template(each) for name, each in value.items()}
    if all(part.constant for part in parts.values()):
        return _constant(value)
    entries = [(name, part.evaluate) for name, part in parts.items()]

    def evaluate(scope: Scope) -> dict[str, Any]:
        made = {}
        for name, part in entries:
            try:
                made[name] = part(scope)
            except EvaluationError as error:
                raise EvaluationError(error.message, (name, *error.path)) from error
        return made

    return Template(evaluate, _references(list(parts.values())))


def _compile_list(value: list[Any]) -> Template:
    parts = [compile_template(each) for each in value]
    if all(part.constant for part in parts):
        return _constant(value)
    entries = [part.evaluate for part in parts]

    def evaluate(scope: Scope) -> list[Any]:
        made = []
        for index, part in enumerate(entries):
            try:
                made.append(part(scope))
            except EvaluationError as error:
                raise EvaluationError(error.message, (index, *error.path)) from error
        return made

    return Template(evaluate, _references(parts))


def _references(parts: Sequence[Template]) -> tuple[Reference, ...]:
    return tuple({reference: None for part in parts for reference in part.references})


def _compile_text(text: str) -> Template:
    if "{{" not in text and "{%" not in text:
        return _constant(text)
    return _compile_expressions(text)


@lru_cache(maxsize=1024)
def _compile_expressions(text: str) -> Template:
    """Compile a text with expressions; texts that recur, such as conditions, are compiled once."""
    parts = list(_split(text))
    expressions = [part for part in parts if isinstance(part, _Expression)]
    around = [part for part in parts if isinstance(part, str)]
    if len(expressions) == 1 and not "".join(around).strip():
        return Template(expressions[0].evaluate, expressions[0].references)
    references = tuple({each: None for part in expressions for each in part.references})

    def evaluate(scope: Scope) -> str:
        made = [
            part if isinstance(part, str) else _as_text(part, part.evaluate(scope))
            for part in parts
        ]
        try:
            check_text(sum(map(len, made)))
        except ValueError as error:
            raise EvaluationError(str(error)) from error
        return "".join(made)

    return Template(evaluate, references)


def _as_text(expression: "_Expression", value: Any) -> str:
    try:
        return text_of(value)
    except ValueError as error:
        raise expression.failure(error) from error


def _split(text: str) -> Iterator["str | _Expression"]:
    """Take a text apart into text and expressions.

    Raises:
        ExpressionError: An expression is wrong or does not end, or there is a ``{%``.
    """
    position = 0
    trim = False  # whether the expression before ends with -}}
    while True:
        begin = text.find("{{", position)
        between = text[position:] if begin < 0 else text[position:begin]
        between = between.lstrip() if trim else between
        if "{%" in between:
            raise ExpressionError(
                "{% … %} is not available, only {{ … }}; the text itself is {{ '{%' }}"
            )
        if begin >= 0 and text.startswith("-", begin + 2):
            between = between.rstrip()
            begin += 1
        if between:
            yield between
        if begin < 0:
            return
        end = _end_of(text, begin + 2)
        trim = text[end - 1] == "-"
        yield _Expression(text[begin + 2 : end - trim])
        position = end + 2


def _end_of(text: str, position: int) -> int:
    """Find the ``}}`` that ends an expression: not in quotes, not of a dict within it."""
    open_brackets = 0
    begin = position
    while match := _TOKEN.match(text, position):
        token = match.group()
        if token == "}}" and not open_brackets:
            return position
        if token == "}}":  # of two dicts, one within the other
            token, end = "}", position + 1
        else:
            end = match.end()
        if token in "[({":
            open_brackets += 1
        elif token in "])}":
            open_brackets = max(0, open_brackets - 1)
        position = end
    raise ExpressionError(f"{{{{ without }}}}: {text[begin - 2 : begin + 40]!r}")


class _Expression:
    """One expression, compiled: to a direct getter where it is plain, else by Jinja2.

    Where there is a getter Jinja2's code, ten times as dear to make, is made when it is needed.
    """

    __slots__ = ("_getter", "_render", "_source", "evaluate", "references")

    def __init__(self, source: str) -> None:
        self._source = source.strip()
        if len(self._source) > EXPRESSION_CHARS_MAX:
            raise ExpressionError(
                f"an expression has {len(self._source)} characters, "
                f"the limit is {EXPRESSION_CHARS_MAX}"
            )
        try:
            tree = _parse(self._source)
            self.references = tuple(_find_references(tree))
            self._getter: Getter | None = getter_for(tree)
            self._render: Any = _compile(tree) if self._getter is None else None
        except TemplateError as error:
            reason = (error.message or "").replace("end of template", "end of the expression")
            raise ExpressionError(f"{{{{ {self._source:.200} }}}}: {reason}") from error
        except ValueError as error:  # a number of thousands of digits
            raise ExpressionError(f"{{{{ {self._source:.200} }}}}: {error}") from error
        except (RecursionError, MemoryError, SyntaxError) as error:
            raise ExpressionError(
                f"{{{{ {self._source:.200} }}}}: nested too deep to be compiled"
            ) from error
        self.evaluate = self._by_jinja if self._getter is None else self._by_getter

    def _by_getter(self, scope: Scope) -> Any:
        try:
            return self._getter(scope)  # type: ignore[misc]  # chosen where there is one
        except Exception:  # whatever it is, Jinja2 says it better or knows the value
            return self._by_jinja(scope)

    def _by_jinja(self, scope: Scope) -> Any:
        context = EvaluationContext(_ENVIRONMENT, scope.lookup)
        try:
            if self._render is None:
                self._render = _compile(_parse(self._source))
            for _ in self._render(context):
                pass
            return plain(context.vars[_RESULT])
        except Exception as error:  # users' expressions raise whatever Python does
            raise self.failure(error) from error

    def failure(self, error: Exception) -> EvaluationError:
        """Say which expression it was, and why it failed."""
        reason = getattr(error, "message", None) or str(error) or type(error).__name__
        if not isinstance(error, (ValueError, TemplateError)):
            reason = f"{type(error).__name__}: {reason}"
        return EvaluationError(f"{{{{ {self._source:.200} }}}}: {reason}")


def _parse(source: str) -> nodes.Expr:
    parser = Parser(_ENVIRONMENT, source, state="variable")
    tree = parser.parse_expression()
    if not parser.stream.eos:
        token = parser.stream.current
        parser.fail(f"unexpected {token.value!r}", token.lineno)
    tree.set_environment(_ENVIRONMENT)
    return tree


def _compile(tree: nodes.Expr) -> Any:
    bounded = BoundConcatenation().visit(tree)
    target = nodes.Name(_RESULT, "store", lineno=1)
    template = nodes.Template([nodes.Assign(target, bounded, lineno=1)], lineno=1)
    template.set_environment(_ENVIRONMENT)
    code = _ENVIRONMENT.compile(template, filename="<expression>")
    return JinjaTemplate.from_code(_ENVIRONMENT, code, {}, None).root_render_func


def _find_references(tree: nodes.Expr) -> Iterator[Reference]:
    """Find the variables that an expression names; not required below what copes without."""
    pending: list[tuple[nodes.Node, bool]] = [(tree, True)]
    while pending:
        node, required = pending.pop()
        name = _referred(node)
        if name is not None:
            yield Reference(name, required)
            continue
        copes = (isinstance(node, nodes.Filter) and node.name in ("default", "d")) or (
            isinstance(node, nodes.Test) and node.name in ("defined", "undefined")
        )
        if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name):
            copes = copes or node.node.name == "default"
        lazy = isinstance(node, nodes.And | nodes.Or | nodes.CondExpr)
        children = list(node.iter_child_nodes())
        for child in children:
            decides = child is children[0] if lazy else True
            pending.append((child, required and not copes and decides))


def _referred(node: nodes.Node) -> str | None:
    if isinstance(node, nodes.Name):
        return None if node.name in FUNCTION_NAMES else str(node.name)
    if isinstance(node, nodes.Getattr) and _is_ctx_call(node.node):
        return None if node.attr in ("get", "items", "keys", "values") else str(node.attr)
    if isinstance(node, nodes.Getitem) and _is_ctx_call(node.node):
        return _text_of_constant(node.arg)
    if isinstance(node, nodes.Call) and _is_ctx(node.node) and len(node.args) == 1:
        return _text_of_constant(node.args[0])
    return None


def _is_ctx(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == "ctx"


def _is_ctx_call(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Call) and _is_ctx(node.node) and not node.args


def _text_of_constant(node: nodes.Node) -> str | None:
    return node.value if isinstance(node, nodes.Const) and isinstance(node.value, str) else None
