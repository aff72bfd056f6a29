"""Names in a recipe become objects here, and nowhere else.

In a component's signature, **positional** parameters are injected by the framework (``student``, ``labels``), and
**keyword-only** parameters are what a recipe may set, with their types and defaults.

So a signature is documentation, schema and constructor at once, and nothing is written twice.
"""

import importlib
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, fields, make_dataclass
from functools import cached_property
from typing import Annotated, Any, TypeVar, get_args, get_origin

from distill.errors import RecipeError
from distill.registry import signatures, source
from distill.registry.nearest import did_you_mean
from distill.registry.ranges import Range
from distill.registry.signatures import EMPTY, Setting, Signature

Component = Callable[..., Any]
C = TypeVar("C", bound=Component)


class Registry:
    """Components of one kind. Their names are read from the source of ``packages``, so that listing imports nothing;
    only the module of a component that is asked for is imported.

    Args:
        kind: what a component is called in messages, for example ``"compression hook"``.
        decorator: the name under which modules import this registry: ``@hook("svd")`` in a file registers ``svd``.
        packages: the packages, sub-packages included, whose files may register components.
        injectable: every name of an argument that the framework can inject into a component of this kind.
        fallback: imports components that another library owns; returns None for names that it does not know.
        foreign: the names that ``fallback`` knows, found without importing that library.
        default: the name that a recipe may leave out.
    """

    def __init__(
        self,
        kind: str,
        decorator: str,
        packages: Sequence[str],
        injectable: Collection[str] = (),
        fallback: Callable[[str], Component | None] = lambda name: None,
        foreign: Callable[[], Collection[str]] = tuple,
        default: str | None = None,
    ) -> None:
        self.kind = kind
        self.decorator = decorator
        self.packages = tuple(packages)
        self.injectable = frozenset(injectable)
        self.default = default
        self._fallback = fallback
        self.foreign = foreign
        self._components: dict[str, Component] = {}

    def __call__(self, name: str) -> Callable[[C], C]:
        """Decorator: ``@loss("at")`` above a function or a class makes ``at`` a name for recipes."""

        def register(component: C) -> C:
            home = self.modules.get(name)
            if name in self._components or (home and home not in sys.modules):
                raise ValueError(f"{self.kind} '{name}' exists already in {home}: {component!r} needs another name")
            if unknown := set(required(component)) - self.injectable:
                raise TypeError(f"{self.kind} '{name}' {self._cannot_inject(unknown)}")
            if "<locals>" in getattr(component, "__qualname__", ""):  # made by a factory, which does not know the name
                component.__name__ = name
            self._components[name] = component
            return component

        return register

    @cached_property
    def modules(self) -> Mapping[str, str]:
        """The module of every component, by name, as the decorators in the packages' files say."""
        pattern = re.compile(rf"""\b{self.decorator}\("([\w.]+)"\)""")
        found: dict[str, str] = {}
        for module, text in _sources(self.packages):
            for name in pattern.findall(text):
                if name in found:
                    raise ValueError(f"{self.kind} '{name}' is in {found[name]} and in {module}: rename one of them")
                found[name] = module
        return found

    def names(self) -> list[str]:
        """Every name, sorted; nothing is imported."""
        return sorted({*self.modules, *self._components})

    def signature(self, name: str) -> Signature:
        """What a component asks for and what a recipe may set; nothing is imported if its source says it plainly.

        Raises:
            RecipeError: there is no component of that name, or it belongs to another library.
        """
        read = None
        if name in self.modules and name not in self._components:
            read = source.signature(self.modules[name], self.decorator, name)
        return read or signatures.of(self.find(name))

    def check(self, name: str) -> None:
        """Check that there is a component of that name; nothing is imported but code outside of this repository.

        Raises:
            RecipeError: there is none, or it asks for what cannot be injected.
        """
        if ":" in name:
            self._check_outside(name)
        elif name not in self.names() and name not in self.foreign():
            raise self._unknown(name)

    def _check_outside(self, name: str) -> None:
        component = _outside(self.kind, name)
        if not self.injectable:  # networks of other libraries are called with keywords alone
            return
        try:
            unknown = set(required(component)) - self.injectable
        except (TypeError, ValueError, NameError) as error:
            raise RecipeError(f"{self.kind} '{name}' has no readable signature: {error}") from None
        if unknown:
            raise RecipeError(f"{self.kind} '{name}' {self._cannot_inject(unknown)}")

    def _cannot_inject(self, unknown: Collection[str]) -> str:
        return (
            f"asks for {sorted(unknown)}, but may ask for {sorted(self.injectable)}; "
            "make a setting of the recipe keyword-only"
        )

    def find(self, name: str) -> Component:
        """``"at"`` is a component of this package; ``"package.module:attribute"`` is code outside this repository.

        Raises:
            RecipeError: there is no component of that name.
        """
        if ":" in name:
            return _outside(self.kind, name)
        if name not in self._components and name in self.modules:
            importlib.import_module(self.modules[name])
        if name in self._components:
            return self._components[name]
        if component := self._fallback(name):
            return component
        raise self._unknown(name)

    def parse(self, text: str) -> tuple[str, dict[str, Any]]:
        """Name and settings of a component in one text: ``"csc"``, ``"csc(index_bits=8)"``; nothing is imported.

        Raises:
            RecipeError: there is no component of that name, or it has no such setting, or of another type.
        """
        match = re.fullmatch(r"([\w.:]+)(?:\((.*)\))?", text)
        if not match:
            raise RecipeError(f"'{text}' is no {self.kind}: write a name, or name(setting=value)")
        name, listed = match.groups()
        self.check(name)
        kinds = {setting.name: setting.hint for setting in self.signature(name).settings}
        settings: dict[str, Any] = {}
        for part in listed.split(",") if listed else ():
            key, _, value = (side.strip() for side in part.partition("="))
            if key not in kinds:
                raise RecipeError(f"{self.kind} '{name}' has no setting {did_you_mean(key, kinds)}")
            settings[key] = _number(value, kinds[key], f"{self.kind} '{name}': {key}")
        return name, settings

    def _unknown(self, name: str) -> RecipeError:
        return RecipeError(f"unknown {self.kind} {did_you_mean(name, self.names(), self.foreign())}")


def _number(text: str, hint: Any, place: str) -> Any:
    """A number of an annotation's type, in its range."""
    kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    try:
        value = kind(text)
    except ValueError:
        raise RecipeError(f"{place} is of type {kind.__name__}, not '{text}'") from None
    for note in notes:
        if isinstance(note, Range):
            note.check(value, place)
    return value


def injected(component: Component) -> list[str]:
    """Names of the positional parameters: the arguments that the framework injects."""
    return list(signatures.injected(component))


def required(component: Component) -> list[str]:
    """All arguments to inject into a component: when built and, if it has a ``forward``, when called."""
    return list(signatures.of(component).required)


def schema(component: Component | Signature, base: type, inferred: Collection[str] = ()) -> type:
    """A dataclass of the component's keyword-only parameters, on top of what every component of its kind has.

    Parameters named in ``inferred`` become optional: None means "as the data says".
    """
    signature = component if isinstance(component, Signature) else signatures.of(component)
    if clash := {s.name for s in signature.settings} & {f.name for f in fields(base)}:
        raise TypeError(f"{sorted(clash)} already belong to every {base.__name__}; rename these settings")
    columns = [
        (s.name, s.hint | None, field(default=None)) if s.name in inferred else (s.name, s.hint, _field(s))
        for s in signature.settings
    ]
    return make_dataclass(base.__name__, columns, bases=(base,), kw_only=True)


def _field(setting: Setting) -> Any:
    return field() if setting.default is EMPTY else field(default_factory=lambda: setting.default)


def options(component: Component, spec: Any) -> dict[str, Any]:
    """The keyword-only arguments that a typed recipe node holds for ``component``."""
    return {setting.name: getattr(spec, setting.name) for setting in signatures.of(component).settings}


def call(component: Component, spec: Any, available: Mapping[str, Callable[[], Any]]) -> Any:
    """Call a component with the injected arguments that it asks for, and with the settings of its recipe node."""
    return component(*(available[name]() for name in injected(component)), **options(component, spec))


def _sources(packages: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Name and text of every module of these packages; none of them is imported."""
    for package in packages:
        folder = source.path_of(package).parent
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            yield ".".join((package, *parts)).removesuffix(".__init__"), file.read_text(encoding="utf-8")


def _outside(kind: str, name: str) -> Component:
    """The function or class at an address ``package.module:attribute``."""
    module, _, attribute = name.partition(":")
    try:
        component: Component = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise RecipeError(
            f"{kind} '{name}': cannot import '{module}' ({error}); is its folder on PYTHONPATH?"
        ) from None
    except AttributeError:
        raise RecipeError(f"{kind} '{name}': module '{module}' has no attribute '{attribute}'") from None
    except Exception as error:  # a module of the user's may raise anything
        raise RecipeError(f"{kind} '{name}': importing '{module}' failed: {type(error).__name__}: {error}") from error
    if not callable(component):
        raise RecipeError(f"{kind} '{name}' is neither a function nor a class")
    return component


loss = Registry(
    "loss",
    "loss",
    ["distill.losses"],
    injectable={
        *("student", "teacher", "labels", "sample", "inputs"),
        *("student_shape", "teacher_shape", "student_shapes", "teacher_shapes", "student_model", "teacher_model"),
        *("teacher_path", "teacher_paths", "train_labels", "num_classes", "batch_size"),
    },
)
"""See `distill.losses` for what each argument is."""

hook = Registry(
    "compression hook",
    "hook",
    ["distill.compress"],
    injectable={"artifact", "calibration", "evaluate", "example", "progress", "task_loss"},
)
"""See `distill.compress` for what each argument is."""

surgery = Registry("structural change", "surgery", ["distill.compress", "distill.losses"], {"model", "layers"})
"""``@surgery("svd")`` above ``apply(model, layers) -> nn.Module``: builds what a plan of that name describes, in the
given model, with no particular values."""

imported = Registry("imported network", "imported", ["distill.models"])
"""Networks of other frameworks, rebuilt from an entry that holds all of their layers as plain data."""

form = Registry("storage format", "form", ["distill.artifact", "distill.compress"])
codec = Registry("codec", "codec", ["distill.codecs"])
data = Registry("data set", "data", ["distill.data"], injectable={"seed"})
task = Registry("task", "task", ["distill.tasks"], injectable={"info", "teacher"}, default="classification")
"""See `distill.tasks.injectable` for what each argument is."""
exporter = Registry(
    "export format", "exporter", ["distill.export"], injectable={"artifact", "folder", "samples", "task"}
)


def needs_teacher(name: str) -> bool:
    """Whether the loss of that name compares the student with a teacher; some look at the student alone."""
    signature = loss.signature(name)
    return "teacher" in (signature.called or signature.injected)
