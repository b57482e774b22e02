"""The Jinja of chat templates: sandboxed, without a loader, and within a budget of steps.

A template comes with a checkpoint, so it is data: it can neither reach Python's internals nor read files, and it may not take all
time or memory either. Every turn of a loop, every call, and every character or element that an operation makes or walks over is a
step; what an operation will make is counted before it is made. Published templates take some thousands. What could make much of
little without being counted (``center``, ``batch``, ``lipsum`` ...) is not there; no published template was found to use it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import loopcontrols
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.visitor import NodeTransformer

STEPS = 1 << 25
_CALL = 64  # steps of a call: it takes as long as so many characters
_GONE = (
    "batch", "center", "filesizeformat", "format", "groupby", "indent", "pprint", "random", "slice", "sum", "truncate", "urlize",
    "wordwrap", "xmlattr",
)  # fmt: skip
_OF_TEXT = (
    "capitalize", "casefold", "count", "endswith", "find", "format", "index", "isalnum", "isalpha", "isdigit", "islower",
    "isnumeric", "isspace", "istitle", "isupper", "join", "lower", "lstrip", "partition", "removeprefix", "removesuffix",
    "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase",
    "title", "upper",
)  # fmt: skip
_METHODS = {
    str: frozenset(_OF_TEXT),
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("count", "index")),
    tuple: frozenset(("count", "index")),
}
_WIDTH = re.compile(r"\d{4,}|\*|\{[^{}]*\{")  # in a format: a width of thousands, or one that is an argument
_MOST_BITS = 1 << 14
_left: ContextVar[list[int]] = ContextVar("steps that are left")


def spend(steps: int) -> None:
    left = _left.get()
    left[0] -= steps
    if left[0] < 0:
        raise SecurityError(f"it takes more than {STEPS} steps")


def _weight(value: Any) -> int:
    """Elements of a value itself."""
    if isinstance(value, (str, bytes, list, tuple, dict, set, frozenset, range)):
        return len(value)
    return value.bit_length() >> 3 if isinstance(value, int) else 1


def _spend_all(value: Any, wide: int = 0) -> Any:
    """A step for each character of what ``value`` writes, which must be plain data. wide: blanks that each level adds."""
    waiting = [(value, 0)]
    while waiting:
        part, depth = waiting.pop()
        spend(4 + _weight(part) + depth * wide)
        if isinstance(part, dict):
            waiting += [(item, depth + 1) for pair in part.items() for item in pair]
        elif isinstance(part, (list, tuple)):
            waiting += [(item, depth + 1) for item in part]
        elif not isinstance(part, (str, int, float, type(None), jinja2.Undefined)):
            raise SecurityError(f"it writes a {type(part).__name__}; allowed: text, numbers, lists and objects")
    return value


def _counted(values: Iterable[Any], steps: int = 1) -> Iterator[Any]:
    for value in values:
        spend(steps)
        yield value


def _weighed(value: Any) -> Any:
    """Of what an operation walks over."""
    if isinstance(value, Iterator):
        return _counted(value)
    spend(1 + _weight(value))
    return value


def _concat(*parts: Any) -> str:
    return "".join([str(_spend_all(part)) for part in parts])


def _replace(text: Any, old: Any, new: Any, count: Any = -1) -> str:
    text, old, new = (str(_spend_all(part)) for part in (text, old, new))
    spend((text.count(old) if old else len(text) + 1) * len(new))
    return text.replace(old, new, -1 if count is None else count)


def _join(values: Any, separator: Any = "", attribute: Any = None) -> str:
    parts = [str(_spend_all(v)) for v in _counted(values if attribute is None else (v[attribute] for v in values))]
    spend(len(parts) * len(str(_spend_all(separator))))
    return str(separator).join(parts)


def _format(text: str, arguments: Iterable[Any]) -> None:
    if _WIDTH.search(text):
        raise SecurityError("it formats to a width; allowed: widths below 1000")
    for argument in arguments:
        _spend_all(argument)
        spend(1000 + text.count("{") * _weight(argument))


def _tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None) -> str:
    if not (indent is None or (type(indent) is int and 0 <= indent <= 16)):
        raise SecurityError(f"tojson: indent is {indent!r}; allowed: 0 to 16")
    return json.dumps(
        _spend_all(value, 1 + (indent or 0)), ensure_ascii=ensure_ascii, indent=indent, separators=separators
    )


def _strftime(form: str) -> str:
    spend(256 * len(form))
    return datetime.now().strftime(form)


class _Counting(NodeTransformer):
    """Puts the counting where Jinja has no hook: turns of loops, ``~``, comparisons and slices."""

    @staticmethod
    def _through(name: str, node: Any, *arguments: nodes.Expr) -> nodes.Filter:
        return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        text = sum(len(data.data) for part in node.body for data in part.find_all(nodes.TemplateData))
        text += sum(len(part.data) for part in node.body if isinstance(part, nodes.TemplateData))
        node.iter = self._through("_turns", node.iter, nodes.Const(1 + text))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._through("_concat", node.nodes[0], *node.nodes[1:])

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = self._through("_weighed", node.expr)
        for operand in node.ops:
            operand.expr = self._through("_weighed", operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = self._through("_weighed", node.node)
        return node


def _turns(values: Any, steps: int) -> Any:
    """What a loop goes over; a list stays one, for ``loop.length``."""
    if isinstance(values, (list, tuple, str, range, Mapping)):
        spend(_CALL + len(values) * steps)
        return values
    spend(_CALL)
    return values if isinstance(values, jinja2.Undefined) else _counted(values, steps)


@jinja2.pass_context
def _written(context: Any, value: Any) -> Any:
    """With a context, so that Jinja computes nothing while it compiles."""
    return _spend_all(value)


class Sandbox(ImmutableSandboxedEnvironment):
    """Compiles a template; ``render`` in ``with_budget``."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "**", "%"])

    def __init__(self, **globals: Any) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loopcontrols],
            optimized=False,
            finalize=_written,
            cache_size=0,
        )
        self.text = 0  # characters that the template writes as they are
        kept = {name: self._counting(f) for name, f in self.filters.items() if name not in _GONE}
        own = {"tojson": _tojson, "replace": _replace, "join": _join, "string": lambda value: str(_spend_all(value))}
        hooks = {"_turns": _turns, "_weighed": _weighed, "_concat": _concat}
        self.filters = {**kept, **{name: jinja2.pass_context(_plain(f)) for name, f in {**own, **hooks}.items()}}
        for name in ("lipsum", "cycler", "joiner"):
            del self.globals[name]
        self.globals |= {"strftime_now": _strftime, **globals}

    @staticmethod
    def _counting(function: Any) -> Any:
        """A filter that counts what it is given, and is never computed while the template is compiled."""

        def call(context: Any, value: Any, *arguments: Any, **named: Any) -> Any:
            for argument in (*arguments, *named.values()):
                _weighed(argument)
            if isinstance(value, Iterator):
                value = _counted(value)
            else:
                spend(_CALL + _weight(value))
            given = (context,) if passed == "context" else (context.eval_ctx,) if passed == "eval_context" else ()
            given = (context.environment,) if passed == "environment" else given
            return function(*given, value, *arguments, **named)

        mark = getattr(function, "jinja_pass_arg", None)
        passed = None if mark is None else mark.name
        return jinja2.pass_context(call)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        self.text = sum(len(data.data) for data in tree.find_all(nodes.TemplateData))
        _Counting().visit(tree)
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sizes = [_weight(left), _weight(right)]
        if operator == "*":
            pairs = ((left, right), (right, left))
            counts = [n * _weight(many) for many, n in pairs if type(n) is int and not isinstance(many, (int, float))]
            spend(max(counts, default=0))
        elif operator == "%" and isinstance(left, str):
            _format(left, right if isinstance(right, tuple) else (right,))
        whole = isinstance(left, int) and isinstance(right, int)
        if whole and operator == "**" and left.bit_length() * abs(right) > _MOST_BITS:
            raise SecurityError(f"a power of {_MOST_BITS} bits or more")
        if whole and operator == "*" and left.bit_length() + right.bit_length() > _MOST_BITS:
            raise SecurityError(f"a product of {_MOST_BITS} bits or more")
        spend(1 + sum(sizes))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(__obj, "__self__", None)
        if isinstance(__obj, Macro) or not isinstance(owner, (str, dict, list, tuple)):
            spend(_CALL + __self.text)
            for argument in (*args, *kwargs.values()):
                _weighed(argument)
        else:
            kind = next(kind for kind in _METHODS if isinstance(owner, kind))
            if __obj.__name__ not in _METHODS[kind]:
                raise SecurityError(
                    f"it calls {kind.__name__}.{__obj.__name__}; allowed: {', '.join(sorted(_METHODS[kind]))}"
                )
            spend(_CALL + _weight(owner))
            if isinstance(owner, str) and __obj.__name__ == "replace":
                return _replace(owner, *args, **kwargs)
            if isinstance(owner, str) and __obj.__name__ == "join" and len(args) == 1 and not kwargs:
                return _join(args[0], owner)
            for argument in (*args, *kwargs.values()):
                _weighed(argument)
        text = getattr(getattr(__obj, "__wrapped__", None), "__self__", None)  # Jinja's own wrapper of str.format
        if isinstance(text, str):
            _format(text, (*args, *kwargs.values()))
        return super().call(__context, __obj, *args, **kwargs)


def _plain(function: Any) -> Any:
    """A filter that needs no context."""

    def call(context: Any, *arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return call


def render(template: jinja2.Template, **variables: Any) -> str:
    """The text of a template of ``Sandbox``. Raises what the template raises, and SecurityError past the budget."""
    token = _left.set([STEPS])
    try:
        return template.render(**variables)
    finally:
        _left.reset(token)


__all__ = ["STEPS", "Sandbox", "render"]
