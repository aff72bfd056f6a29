"""Code of a recipe's own author, ``name: my_losses:Loss``: what steps depend on beside the recipe's words."""

import ast
import hashlib
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

PACKAGES = ("distill", "students")
"""Of this repository: a step's key has their version."""


def outside_code(section: Any) -> dict[str, str]:
    """Hashes of the files of modules that components come from, and of those that they import, by module.

    Files of installed libraries count where a recipe names them; what they import is left out.

    Args:
        section: plain data, in which ``{"name": "module:attribute"}`` names a component.
    """
    return sources(_modules(section))


def sources(modules: Iterable[str]) -> dict[str, str]:
    """As `outside_code`, for modules by name."""
    found: dict[str, str] = {}
    waiting = sorted(set(modules))
    while waiting:
        module = waiting.pop()
        path = _file(module)
        if path is None or module in found:
            continue
        content = path.read_bytes()
        found[module] = hashlib.sha256(content).hexdigest()[:16]
        if not _installed(path):
            waiting += [name for name in _imported(content, module, path) if written_here(name)]
    return found


def _modules(section: Any) -> Iterator[str]:
    if isinstance(section, dict):
        name = section.get("name")
        if isinstance(name, str) and ":" in name:
            yield name.partition(":")[0]
    if isinstance(section, dict | list):
        for inner in section.values() if isinstance(section, dict) else section:
            yield from _modules(inner)


def _imported(content: bytes, module: str, path: Path) -> Iterator[str]:
    """Modules that a file may import; ``from package import name`` may mean ``package.name``."""
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = resolve_name("." * node.level + base, package)
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def written_here(module: str) -> bool:
    """Whether it is no module of Python, of an installed library, or of this repository's packages."""
    top = module.partition(".")[0]
    path = None if top in PACKAGES else _file(top, package=True)
    return path is not None and not _installed(path)


def _installed(path: Path) -> bool:
    return any(path.is_relative_to(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib"))


def _file(module: str, package: bool = False) -> Path | None:
    """A module's source file; of a package without one, where ``package`` asks for it, its folder."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):  # an attribute, not a module; or a module that was never in a file
        return None
    if spec is None:
        return None
    if spec.origin and spec.has_location and spec.origin.endswith(".py"):
        return Path(spec.origin)
    folders = list(spec.submodule_search_locations or ())
    return Path(folders[0]) if package and folders else None
