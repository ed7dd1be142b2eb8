"""Compiling of kernels, and where what is compiled is kept for the next process. Knows numba, and no kernel.

Numba keeps it in the package's folder or in the user's cache. In a container or on a cluster neither may be writable,
and numba then refuses to compile at all.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from numba import njit
from numba.core import event
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    IndexDataCacheFile,
    InTreeCacheLocator,
    UserWideCacheLocator,
)
from numba.misc.appdirs import AppDirs

from rfmdist.machine import temporary_folder

LASTING = "name a lasting folder in NUMBA_CACHE_DIR"
_told = False


def kernel(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function at its first call with each kind of arguments; it holds no lock of Python's.

    Parameters
    ----------
    function : callable
        Which; left out where there are options: ``@kernel`` or ``@kernel(fastmath={"contract"})``.
    **options
        Of `numba.njit`.

    Returns
    -------
    numba dispatcher
        What was compiled before is found where numba keeps it, or else among the user's temporary files; where those
        cannot be written either, and where the disk is full, each process compiles for itself. A warning tells.
    """
    if function is None:
        return lambda given: kernel(given, **options)
    compiled = njit(function, nogil=True, **options)
    try:
        compiled._cache = _Cache(function)
    except (RuntimeError, OSError):  # no folder takes it: the dispatcher keeps nothing
        _tell(f"no folder can be written to for compiled kernels, so each process compiles them anew; {LASTING}")
    return compiled


class Compiled(event.Listener):
    """Counts what numba compiles, and keeps none of it alive."""

    number = 0

    def on_start(self, _: Any) -> None:
        self.number += 1

    def on_end(self, _: Any) -> None:
        pass


@contextmanager
def compilations() -> Iterator[Compiled]:
    """Give the count of the kernels that are compiled meanwhile."""
    counted = Compiled()
    with event.install_listener("numba:compile", counted):
        yield counted


class _TemporaryLocator(InTreeCacheLocator):
    """The user's own folder of temporary files: processes of a machine share it, so that one compiles for all."""

    def __init__(self, function: Any, file: str) -> None:
        super().__init__(function, file)
        self._cache_path = str(temporary_folder() / self.get_suitable_cache_subpath(file))


def _locators() -> list[Any]:
    """Numba's, and ours as the last; without a home numba would take a folder named ``~`` for it."""
    known = CompileResultCacheImpl._locator_classes
    home = os.path.isabs(AppDirs("numba", appauthor=False).user_cache_dir)
    return [each for each in known if home or each is not UserWideCacheLocator] + [_TemporaryLocator]


class _Places(CompileResultCacheImpl):
    _locator_classes = _locators()


class _Cache(FunctionCache):
    """Numba's, but it only saves time: what cannot be read or kept is compiled anew.

    What lies in the package's folder is found there too where that may only be read: who installed it has compiled it.
    """

    _impl_class = _Places

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        folder, place = os.path.join(os.path.dirname(inspect.getfile(function)), "__pycache__"), self._impl.locator
        self._installed = IndexDataCacheFile(folder, self._impl.filename_base, place.get_source_stamp())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
            if found is None:
                packed = self._installed.load(self._index_key(sig, target_context.codegen()))
                found = None if packed is None else self._impl.rebuild(target_context, packed)
            return found
        except Exception:  # what a torn file raises is anything
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            why = error.strerror or error
            _tell(f"compiled kernels cannot be kept in {self.cache_path} ({why}), so each process compiles them anew")
            return
        if isinstance(self._impl.locator, _TemporaryLocator):
            _tell(f"kernels were compiled, and are kept among temporary files in {temporary_folder()}; {LASTING}")


def _tell(sentence: str) -> None:
    """Say it once in a process, as all kernels fare alike."""
    global _told
    if not _told:
        _told = True
        warnings.warn(sentence, stacklevel=3)
