"""What the estimators share with scikit-learn's: parameters by name, tags, and being fitted.

`sklearn.base` brings pandas and scipy.stats, 100 MB and most of a second that a fit has no use for; so it is imported
where scikit-learn itself asks.
"""

from __future__ import annotations

import inspect
from typing import Any, Self

from rfmdist.errors import InputError


class Estimator:
    """An estimator whose parameters are its constructor's keywords, kept under their names.

    scikit-learn's ``clone``, searches and pipelines work with it.
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name; ``deep`` is scikit-learn's convention and changes nothing."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **parameters: Any) -> Self:
        """Set parameters by name.

        Raises
        ------
        InputError
            If there is no parameter of that name.
        """
        known = self.get_params()
        for name, value in parameters.items():
            if name not in known:
                raise InputError(f"{type(self).__name__} has no parameter {name!r}; it has {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = {name: p.default for name, p in inspect.signature(type(self)).parameters.items()}
        changed = [f"{name}={value!r}" for name, value in self.get_params().items() if value is not defaults[name]]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.base import BaseEstimator

        return BaseEstimator().__sklearn_tags__()

    def _check_fitted(self, attribute: str) -> None:
        """Refuse to go on before ``fit``, with scikit-learn's error."""
        if not hasattr(self, attribute):
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(f"this {type(self).__name__} is not fitted yet; call fit first")
