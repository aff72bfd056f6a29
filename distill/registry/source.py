"""Signatures read from source files: nothing is imported but plain types.

Only what components usually are is understood: a decorated function or class, whose bases may be in other files;
``name = registry("name")(factory(...))``, where the factory returns a function that is defined inside it; and a second
decorator, whose inner function hands ``**settings`` on to the function that it decorates. For anything else
`signature` returns None, and the component has to be imported.
"""

import ast
import builtins
import importlib
import importlib.util
import pathlib
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from distill.registry import ranges
from distill.registry.signatures import EMPTY, Setting, Signature, first_paragraph, setting

Definition = ast.FunctionDef | ast.ClassDef

_PLAIN = {
    "typing": vars(typing),
    "pathlib": vars(pathlib),
    "distill.registry.ranges": vars(ranges),
    "collections.abc": {},
}
_SECTIONS = "distill.recipe.schema."
"""Dataclasses, which are imported: they need no more than the registry does."""
_OWN = ("distill", "students")
_BUILTINS = {name: getattr(builtins, name) for name in ("bool", "dict", "float", "int", "list", "str", "tuple")}


class UnreadableError(Exception):
    """The source says it in a way that is not understood here."""


class ForeignLibraryError(UnreadableError):
    """A name is imported from a library outside of this repository, whose source is not read."""


def signature(module: str, decorator: str, name: str) -> Signature | None:
    """The signature of the component ``@decorator("name")`` in a module's file; None if the file is too clever."""
    try:
        home = source(module)
        defined = home.component(decorator, name)
        own = defined.method("__init__") if isinstance(defined.node, ast.ClassDef) else defined
        forward = defined.method("forward") if isinstance(defined.node, ast.ClassDef) else None
        return Signature(
            injected=own.positional() if own else (),
            called=forward.positional() if forward else (),
            settings=tuple(own.settings()) if own else (),
            summary=home.summary,
        )
    except (UnreadableError, OSError, SyntaxError, ValueError):
        return None


def path_of(module: str) -> Path:
    """The file of a module, or the ``__init__.py`` of a package; only the top-level package is looked up.

    Raises:
        UnreadableError: there is no such file.
    """
    top, *parts = module.split(".")
    spec = importlib.util.find_spec(top)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, *parts)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    raise UnreadableError(module)


@cache
def source(module: str) -> "Source":
    """The parsed file of a module."""
    return Source(module, ast.parse(path_of(module).read_text(encoding="utf-8")))


class Source:
    """One parsed file."""

    def __init__(self, module: str, tree: ast.Module) -> None:
        self.module = module
        self.summary = first_paragraph(ast.get_docstring(tree) or "")
        self._statements = tree.body
        self._evaluated: dict[str, Any] = {}

    def component(self, decorator: str, name: str) -> "Defined":
        """What ``decorator("name")`` stands above, or is called with."""
        for statement in self._statements:
            if isinstance(statement, Definition):
                if any(_registers(line, decorator, name) for line in statement.decorator_list):
                    return Defined(self, statement, self._wrapper(statement))
            elif (
                isinstance(statement, ast.Assign)
                and isinstance(statement.value, ast.Call)
                and _registers(statement.value.func, decorator, name)
            ):
                return self._made(statement.value.args[0])
        raise UnreadableError(name)

    def defined(self, name: str) -> "Defined":
        """The function or class of that name, here or where it is imported from."""
        for statement in self._statements:
            if isinstance(statement, Definition) and statement.name == name:
                return Defined(self, statement)
        module, original = self._imported(name)
        if module.partition(".")[0] not in _OWN:
            raise ForeignLibraryError(module)
        return source(module).defined(original)

    def evaluate(self, expression: ast.expr) -> Any:
        """The value of an annotation or a default."""
        names = {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}
        code = compile(ast.Expression(expression), self.module, "eval")
        try:
            return eval(code, {"__builtins__": {}}, {name: self._value(name) for name in names})
        except (NameError, TypeError, AttributeError) as error:
            raise UnreadableError(str(error)) from None

    def _value(self, name: str) -> Any:
        """What a name means at the top of this file."""
        if name not in self._evaluated:
            self._evaluated[name] = self._find(name)
        return self._evaluated[name]

    def _find(self, name: str) -> Any:
        for statement in self._statements:
            match statement:
                case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                    return self.evaluate(value)
        if name in _BUILTINS:
            return _BUILTINS[name]
        module, original = self._imported(name)
        if module in _PLAIN:
            return _PLAIN[module].get(original, Any)
        if module.startswith(_SECTIONS):
            return getattr(importlib.import_module(module), original)
        return source(module)._value(original)

    def _imported(self, name: str) -> tuple[str, str]:
        for statement in self._statements:
            if isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
                for alias in statement.names:
                    if (alias.asname or alias.name) == name:
                        return statement.module, alias.name
        raise UnreadableError(name)

    def _wrapper(self, decorated: Definition) -> "Defined | None":
        """The function that a second decorator puts in place of the decorated one; None if its signature stays."""
        for line in decorated.decorator_list:
            called = line.func if isinstance(line, ast.Call) else line
            if ast.unparse(called).startswith("torch.") or _registers(line, ast.unparse(called)):
                continue
            if not isinstance(called, ast.Name):
                raise UnreadableError(ast.unparse(line))
            made = self.defined(called.id)
            for node in ast.walk(made.node):
                if isinstance(node, ast.FunctionDef) and node.args.kwarg:
                    return Defined(made.source, node)
            raise UnreadableError(ast.unparse(line))
        return None

    def _made(self, argument: ast.expr) -> "Defined":
        """The function inside the factory that makes a component."""
        match argument:
            case ast.Call(func=ast.Name(id=factory)):
                made = self.defined(factory)
                returned = {
                    node.value.id
                    for node in ast.walk(made.node)
                    if isinstance(node, ast.Return) and isinstance(node.value, ast.Name)
                }
                for statement in made.node.body:
                    if isinstance(statement, ast.FunctionDef) and statement.name in returned:
                        return Defined(made.source, statement)
        raise UnreadableError(ast.unparse(argument))


@dataclass(frozen=True)
class Defined:
    """A function or a class, and the file that its names are looked up in."""

    source: Source
    node: Definition
    wrapper: "Defined | None" = None
    """Called in its place, with its own settings before those of this function."""

    def method(self, name: str) -> "Defined | None":
        """A method of a class or of its bases; None where only torch's base class has one."""
        assert isinstance(self.node, ast.ClassDef)
        if self.node.decorator_list and any("dataclass" in ast.unparse(line) for line in self.node.decorator_list):
            raise UnreadableError(self.node.name)
        for statement in self.node.body:
            if isinstance(statement, ast.FunctionDef) and statement.name == name:
                return Defined(self.source, statement)
        for base in self.node.bases:
            if (parent := self._parent(base)) is None:
                if name == "__init__" and ast.unparse(base) not in ("nn.Module", "ABC"):
                    raise UnreadableError(ast.unparse(base))
            elif found := parent.method(name):
                return found
        return None

    def _parent(self, base: ast.expr) -> "Defined | None":
        """A base class in a package of this repository; None for another library's."""
        try:
            return self.source.defined(base.id) if isinstance(base, ast.Name) else None
        except ForeignLibraryError:
            return None

    def positional(self) -> tuple[str, ...]:
        """Names of the positional parameters but ``self``."""
        if self.wrapper:
            return self.wrapper.positional()
        return tuple(argument.arg for argument in self._arguments.args if argument.arg != "self")

    def settings(self) -> Iterator[Setting]:
        """The keyword-only parameters, annotations and defaults evaluated."""
        if self.wrapper:
            yield from self.wrapper.settings()
        for argument, default in zip(self._arguments.kwonlyargs, self._arguments.kw_defaults, strict=True):
            hint = EMPTY if argument.annotation is None else self.source.evaluate(argument.annotation)
            yield setting(argument.arg, hint, EMPTY if default is None else self.source.evaluate(default))

    @property
    def _arguments(self) -> ast.arguments:
        assert isinstance(self.node, ast.FunctionDef)
        return self.node.args


def _registers(expression: ast.expr, decorator: str, name: str | None = None) -> bool:
    """Whether an expression is ``decorator("name")``, or with any text in place of the name."""
    match expression:
        case ast.Call(func=ast.Name(id=called), args=[ast.Constant(value=str(value))], keywords=[]):
            return called == decorator and name in (None, value)
    return False
