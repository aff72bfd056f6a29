"""Names in a recipe become objects here, and nowhere else.

One rule joins recipes to code. In a component's signature

* **positional** parameters are what the framework supplies (``student``, ``labels``, ``teacher_shape``);
* **keyword-only** parameters are what a recipe may set, with their types and defaults.

So a signature is documentation, schema and constructor at once, and nothing is written twice.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import field, fields, make_dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar, get_type_hints

from distill.errors import RecipeError

Component = Callable[..., Any]
C = TypeVar("C", bound=Component)


class Registry:
    """Components of one kind, found by importing every module of ``package`` on first use.

    Args:
        kind: what a component is called in messages, for example ``"loss"``.
        package: the package whose modules register components; modules named ``_x`` are not imported.
        also: more packages that may hold some.
        offers: every name that the framework can supply to a component of this kind.
        elsewhere: finds components that another library owns; answers None for names it does not know.
    """

    def __init__(
        self,
        kind: str,
        package: str,
        offers: Collection[str] = (),
        elsewhere: Callable[[str], Component | None] = lambda name: None,
        also: Sequence[str] = (),
    ) -> None:
        self.kind = kind
        self.packages = (package, *also)
        self.offers = frozenset(offers)
        self._elsewhere = elsewhere
        self._components: dict[str, Component] = {}

    def __call__(self, name: str) -> Callable[[C], C]:
        """Decorator: ``@loss("at")`` above a function or a class makes ``at`` a name for recipes."""

        def register(component: C) -> C:
            if name in self._components:
                raise ValueError(f"two {self.kind}s are called '{name}': {self._components[name]!r} and {component!r}")
            if unknown := set(needs(component)) - self.offers:
                raise TypeError(
                    f"{self.kind} '{name}' asks for {sorted(unknown)}, but may ask for {sorted(self.offers)}; "
                    "make a setting of the recipe keyword-only"
                )
            self._components[name] = component
            return component

        return register

    def names(self) -> list[str]:
        for package in self.packages:
            _import_all(package)
        return sorted(self._components)

    def find(self, name: str) -> Component:
        """``"at"`` is one of ours; ``"package.module:attribute"`` reaches code outside this repository."""
        if ":" in name:
            return _foreign(self.kind, name)
        if name not in self.names():
            if component := self._elsewhere(name):
                return component
            raise RecipeError(f"unknown {self.kind} {did_you_mean(name, self.names())}")
        return self._components[name]


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """The second half of every "unknown name" message: the nearest valid name, then all of them."""
    valid = list(valid)
    close = get_close_matches(name, valid, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"'{name}'.{hint} There are: {', '.join(valid)}"


def supplied(component: Component) -> list[str]:
    """Names of the positional parameters: what the framework must supply."""
    return [p.name for p in _parameters(component) if p.kind is p.POSITIONAL_OR_KEYWORD]


def needs(component: Component) -> list[str]:
    """All that a component must be supplied with: when built and, if it has a ``forward``, when called."""
    return supplied(component) + (supplied(component.forward) if hasattr(component, "forward") else [])


def schema(component: Component, base: type, inferred: Collection[str] = ()) -> type:
    """A dataclass of the component's keyword-only parameters, on top of what every component of its kind has.

    Parameters named in ``inferred`` become optional: None means "as the data says".
    """
    hints = get_type_hints(component.__init__ if inspect.isclass(component) else component)
    settings = [p for p in _parameters(component) if p.kind is p.KEYWORD_ONLY]
    if clash := {p.name for p in settings} & {f.name for f in fields(base)}:
        raise TypeError(f"{component.__name__}: {sorted(clash)} already belong to every {base.__name__}; rename them")
    columns = [
        (p.name, hints[p.name] | None, field(default=None))
        if p.name in inferred
        else (p.name, hints[p.name], _default(p))
        for p in settings
    ]
    return make_dataclass(component.__name__, columns, bases=(base,), kw_only=True)


def options(component: Component, spec: Any) -> dict[str, Any]:
    """The keyword-only arguments that a typed recipe node holds for ``component``."""
    return {p.name: getattr(spec, p.name) for p in _parameters(component) if p.kind is p.KEYWORD_ONLY}


def call(component: Component, spec: Any, offers: Mapping[str, Callable[[], Any]]) -> Any:
    """Call a component with those of the ``offers`` that it asks for, and with the settings of its recipe node."""
    return component(*(offers[need]() for need in supplied(component)), **options(component, spec))


@cache
def _import_all(package: str) -> None:
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        if not module.name.startswith(f"{package}._"):
            importlib.import_module(module.name)


def _foreign(kind: str, name: str) -> Component:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise RecipeError(
            f"{kind} '{name}': cannot import '{module}' ({error}); is its folder on PYTHONPATH?"
        ) from None
    except AttributeError:
        raise RecipeError(f"{kind} '{name}': module '{module}' has no attribute '{attribute}'") from None


def _parameters(component: Component) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(component).parameters.values() if p.name != "self"]


def _default(parameter: inspect.Parameter) -> Any:
    if parameter.default is parameter.empty:
        return field(default="???")  # OmegaConf's mark for "the recipe must say"
    return field(default_factory=lambda: parameter.default)
