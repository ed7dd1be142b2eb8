"""`DeepLinearNetwork`: a deep linear network trained by gradient descent, in JAX. Knows no feature matrix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfmdist.checks import check_loop, check_number, check_whole
from rfmdist.deep import MatrixSensor, Measured, Operators, layer_product
from rfmdist.errors import InputError
from rfmdist.iterating import Callback, root_mean_square

Matrix = NDArray[np.float64]
GROW, SHRINK = 1.1, 0.5
"""What a step that lowered the loss enough is multiplied by, and one that did not."""
REACH = 0.1
"""Most that one step may move the layers, over their norm: near the saddle at 0 any longer step lowers the loss too,
but a few such steps are no descent along the slope, and unbalance the layers (correlation 0.92 at depth 2)."""


class DeepLinearNetwork(MatrixSensor):
    """Deep linear network W_L ⋯ W_1, trained on the measurements by gradient descent on all layers.

    The loss is half the sum of squared residuals, 1/2 Σ_k (<A_k, W_L ⋯ W_1> - y_k)², without a penalty: what is found
    among the many matrices that fit is the work of the small start and the depth alone (arXiv 2401.04553, the baseline
    of its experiments and of its section on the neural feature ansatz). Values are divided by their root mean square,
    so that ``initialisation`` and ``step`` have no unit.

    With ``step="auto"`` each step is the largest that keeps lowering the loss by at least half of what its slope
    promises, and moves the layers by at most a tenth of their norm. It grows by 1.1 after a step that does; after one
    that does not it is halved, and the step taken back. So it is large where the loss is flat, and leaves the saddle at
    0 in hundreds of steps.

    Parameters
    ----------
    depth : int, default 3
        L ≥ 2.
    width : int, optional
        Width of the hidden layers; None for min(m, n), which bounds no rank.
    initialisation : float, default 1e-3
        Scale of the whole map at the start, above 0: of its singular values if balanced. Each layer has the scale
        initialisation^(1/L), so that the time to leave the saddle hardly depends on the depth.
    balanced : bool, default True
        Start from W_{ℓ+1}'W_{ℓ+1} = W_ℓW_ℓ', all nonzero singular values equal, as theory wants it; otherwise from
        independent normal entries of variance initialisation^(2/L) / width.
    step : float or "auto", default "auto"
        Size of a step, fixed if a number.
    steps : int, default 200
        Gradient steps of one iterate, of those that callbacks are told of.
    max_iter : int, default 1000
        Most iterates.
    tol : float, default 1e-6
        The fit ends when the root mean square of the residuals is below this, in units of the values', or an iterate
        changes the estimate by less than this share of it.
    random_state : int, default 0
        Seed of the start.
    callbacks : sequence of callables, optional
        Each is called with an `rfmdist.iterating.Iterate`; one that returns True ends the fit.

    Attributes
    ----------
    matrix_ : float64 ndarray of shape (m, n)
        The estimate, W_L ⋯ W_1.
    layers_ : list of float64 ndarray
        W_1 (width, n), …, W_L (m, width) of the last iterate (also while the fit runs).
    loss_ : float
        Loss at the last iterate, of the values divided by their root mean square.
    history_ : list of Iterate
    n_iter_ : int

    Raises
    ------
    InputError
        From ``fit``, if a parameter is out of range, the step is too large, or JAX is not installed.
    """

    def __init__(
        self,
        *,
        depth: int = 3,
        width: int | None = None,
        initialisation: float = 1e-3,
        balanced: bool = True,
        step: float | str = "auto",
        steps: int = 200,
        max_iter: int = 1000,
        tol: float = 1e-6,
        random_state: int = 0,
        callbacks: Sequence[Callback] | None = None,
    ) -> None:
        self.depth = depth
        self.width = width
        self.initialisation = initialisation
        self.balanced = balanced
        self.step = step
        self.steps = steps
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.callbacks = callbacks

    def _estimates(self, entries: Measured) -> Iterable[Matrix]:
        check_whole("depth", self.depth, 2)
        check_whole("steps", self.steps, 1)
        check_loop(self)
        check_whole("random_state", self.random_state, 0)
        if self.width is not None:
            check_whole("width", self.width, 1)
        if not isinstance(self.balanced, bool | np.bool_):
            raise InputError(f"balanced={self.balanced!r} must be True or False")
        check_number("initialisation", self.initialisation, least=0, above=True)
        if isinstance(self.step, str) and self.step != "auto":
            raise InputError(f"step={self.step!r} must be 'auto' or a number above 0")
        if not isinstance(self.step, str):
            check_number("step", self.step, least=0, above=True)
        _float64()  # so that a missing JAX is told of before work begins
        return self._iterates(entries)

    def _iterates(self, measured: Measured) -> Iterator[Matrix]:
        unit = root_mean_square(measured.values)
        operators, targets = _dense(measured, unit)
        enough = self.tol**2 * len(measured.values) / 2
        adaptive = self.step == "auto"
        with _float64():
            state = _begun(self._start(measured.shape), 1.0 if adaptive else float(self.step), operators, targets)
        while True:
            with _float64():  # around the steps alone: the caller's own JAX keeps its precision
                state = _stepper()(state, operators, targets, self.steps, adaptive)
            layers, _, loss, _ = state
            share = unit ** (1 / self.depth)  # balanced layers stay balanced
            self.layers_ = [share * np.asarray(layer) for layer in layers]
            self.loss_ = float(loss)
            yield layer_product(self.layers_)
            if self.loss_ <= enough:
                return

    def _start(self, shape: tuple[int, int]) -> tuple[Matrix, ...]:
        """Return W_1..W_L of the start."""
        (m, n), rng = shape, np.random.default_rng(self.random_state)
        width = min(m, n) if self.width is None else self.width
        sizes = [n, *[width] * (self.depth - 1), m]
        scale = self.initialisation ** (1 / self.depth)
        if not self.balanced:
            return tuple(scale / np.sqrt(width) * rng.normal(size=(out, into)) for into, out in pairwise(sizes))
        rank = min(sizes)
        bases = [np.linalg.qr(rng.normal(size=(size, rank)))[0] for size in sizes]
        return tuple(scale * out @ into.T for into, out in pairwise(bases))


def _dense(measured: Measured, unit: float) -> tuple[Matrix, Matrix]:
    """Return the operators and what they should give: (N, m, n) and (N,), or an (m, n) mask and its values."""
    if isinstance(measured, Operators):
        return measured.matrices, measured.values / unit
    mask, values = np.zeros(measured.shape), np.zeros(measured.shape)
    mask[measured.rows, measured.columns] = 1.0
    values[measured.rows, measured.columns] = measured.values / unit
    return mask, values


def _float64() -> AbstractContextManager[None]:
    """JAX in float64 within this context alone."""
    try:
        import jax
    except ImportError as error:
        raise InputError("DeepLinearNetwork needs JAX: pip install 'rfmdist[networks]'") from error
    return jax.enable_x64(True)


def _loss(layers: Any, operators: Any, targets: Any) -> Any:
    import jax.numpy as jnp

    estimate = layer_product(layers)
    seen = operators * estimate if operators.ndim == 2 else jnp.tensordot(operators, estimate)
    return 0.5 * jnp.sum((seen - targets) ** 2)


def _begun(layers: Any, step: float, operators: Any, targets: Any) -> Any:
    """Return the state of a descent: layers, step, loss and gradient."""
    import jax
    import jax.numpy as jnp

    layers = tuple(map(jnp.asarray, layers))
    loss, gradient = jax.value_and_grad(_loss)(layers, operators, targets)
    return layers, jnp.asarray(step), loss, gradient


@lru_cache
def _stepper() -> Any:
    """Return ``run(state, operators, targets, steps, adaptive)``, compiled once for each shape."""
    import jax
    import jax.numpy as jnp

    def norm(arrays: Any) -> Any:
        return jnp.sqrt(sum(jnp.sum(array**2) for array in arrays))

    def advance(state: Any, operators: Any, targets: Any, adaptive: bool) -> Any:
        layers, step, loss, gradient = state
        if adaptive:
            step = jnp.minimum(step, REACH * norm(layers) / jnp.maximum(norm(gradient), np.finfo(np.float64).tiny))
        moved = tuple(layer - step * slope for layer, slope in zip(layers, gradient, strict=True))
        lower, steeper = jax.value_and_grad(_loss)(moved, operators, targets)
        after = moved, step, lower, steeper
        if not adaptive:
            return after
        enough = lower <= loss - 0.5 * step * norm(gradient) ** 2  # False for NaN
        kept = jax.tree.map(lambda new, old: jnp.where(enough, new, old), after, state)
        return kept[0], step * jnp.where(enough, GROW, SHRINK), kept[2], kept[3]

    def run(state: Any, operators: Any, targets: Any, steps: int, adaptive: bool) -> Any:
        return jax.lax.fori_loop(0, steps, lambda _, now: advance(now, operators, targets, adaptive), state)

    return jax.jit(run, static_argnames="adaptive")
