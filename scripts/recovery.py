"""Recover random low-rank matrices from some of their entries, knowing neither rank nor noise; and peers beside it.

    python scripts/recovery.py [--size 500] [--columns N] [--rank 5] [--oversampling 2 1.6 1.4 1.2 1.1 1.05]
                               [--seeds 10] [--cap 20] [--rows exact auto columns ...]

Gaussian factors, entries observed uniformly at random, ``--oversampling`` times as many as degrees of freedom. A row
counts a seed as recovered if the mean square error of the unobserved entries, relative to the values', is below 1e-3
in the largest block in which each row and column has rank + 2 observed entries; what is flagged as not determined
there counts as not recovered. Then: how often the true rank was found, medians of iterations and steps, of seconds,
and of the error. The rows:

    exact       LinRFM(noise=0): search on both sides, rank cut, finish by variable projection, certificate
    auto        LinRFM's defaults with offsets=None, which are told nothing
    both        the loop on both sides alone, by defaults, float64, rank ``--cap``: its rank is not cut
    columns     the same, columns alone: the paper's form
    als true    alternating least squares told the true rank, the ridge falling slowly, as suits it best
    als cap     the same of rank ``--cap``
    matrixirls  MatrixIRLS (Kümmerle and Mayrink Verdun, 2021), told the true rank: weighted least squares in the
                tangent space by conjugate gradients, smoothing min(eps, sigma_{r+1}); our own compact version

Peers see the same entries; none sees the unobserved ones, but als has settings looked for on them.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from rfmdist import LinRFM

LIMIT = 1e-3
"""Relative mean square error of the unobserved entries that counts as recovered."""
ALS = (5.0, 0.95, 1e-4, 150)
"""Start, factor, least ridge and iterations, in units of the values' mean square: looked for on unobserved entries."""
IRLS_ITERATIONS, IRLS_GRADIENTS, IRLS_ACCURACY, IRLS_END, IRLS_STALL = 60, 200, 1e-8, 1e-6, 0.999
"""Outer iterations of MatrixIRLS, conjugate gradients in each and their accuracy; the smoothing, over the first, that
ends it, or, over that of ten iterations ago, that gives it up."""


class Answer(NamedTuple):
    """What a method found: the completed matrix, its rank if it tells one, and how many iterations it took."""

    completed: Any
    rank: int | None
    iterations: int


class Problem:
    """A low-rank matrix of unit mean square, which of its entries are observed, and which are scored."""

    def __init__(self, rows: int, columns: int, rank: int, oversampling: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        matrix = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns))
        mask = np.zeros(rows * columns, bool)
        mask[rng.permutation(rows * columns)[: round(oversampling * rank * (rows + columns - rank))]] = True
        mask = mask.reshape(rows, columns)
        self.rank = rank
        self.matrix = matrix / np.sqrt(np.mean(matrix**2))
        self.observed = sp.coo_array((self.matrix[mask], np.nonzero(mask)), matrix.shape)
        self.scored = ~mask & np.outer(*core(mask, rank + 2))

    def error(self, completed: Any) -> float:
        """Mean square error of the scored entries; NaN where one of them has no prediction."""
        return float(np.mean((completed - self.matrix)[self.scored] ** 2))


def core(mask: Any, least: int) -> tuple[Any, Any]:
    """Rows and columns of the largest block in which each has ``least`` observed entries."""
    rows, columns = np.ones(mask.shape[0], bool), np.ones(mask.shape[1], bool)
    while True:
        kept = rows & (mask[:, columns].sum(axis=1) >= least), columns & (mask[rows].sum(axis=0) >= least)
        if (kept[0] == rows).all() and (kept[1] == columns).all():
            return kept
        rows, columns = kept


def ours(problem: Problem, **settings: Any) -> Answer:
    """Our fit, and its rank where that was found and not given."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a matrix that is not certified shows in the row
        model = LinRFM(**{"offsets": None, "dtype": "float64", **settings}).fit(problem.observed)
    certified = model.certificate_ is not None and model.certificate_.certified
    rank = model.rank_ if certified else None
    return Answer(model.completion_.predict_block().compute(), rank, model.n_iter_)


def als(problem: Problem, rank: int) -> Answer:
    """Alternating least squares of a given rank, its ridge falling."""
    by_row, (ridge, factor, least, iterations) = sp.csr_array(problem.observed), ALS
    by_column = by_row.T.tocsr()
    columns = np.random.default_rng(0).normal(size=(by_row.shape[1], rank)) / np.sqrt(rank)
    for _ in range(iterations):
        rows = ridge_rows(by_row, columns, ridge)
        columns, ridge = ridge_rows(by_column, rows, ridge), max(factor * ridge, least)
    return Answer(rows @ columns.T, None, iterations)


def ridge_rows(matrix: sp.csr_array, factors: np.ndarray, ridge: float) -> np.ndarray:
    """Ridge regression of each row's entries on the factors of their columns, all rows at once."""
    rank = factors.shape[1]
    there = sp.csr_array((np.ones_like(matrix.data), matrix.indices, matrix.indptr), shape=matrix.shape)
    grams = (there @ np.einsum("ia,ib->iab", factors, factors).reshape(-1, rank * rank)).reshape(-1, rank, rank)
    return np.linalg.solve(grams + ridge * np.eye(rank), (matrix @ factors)[:, :, None])[:, :, 0]


class Tangent:
    """The space of U M V' + U L + R V', with L V = 0 and U'R = 0, sampled at the observed entries; as flat vectors."""

    def __init__(self, left: np.ndarray, right: np.ndarray, i: np.ndarray, j: np.ndarray) -> None:
        self.left, self.right, self.i, self.j = left, right, i, j
        self.shape, self.rank = (len(left), len(right)), left.shape[1]

    def parts(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """M (r, r), L (r, n) and R (m, r)."""
        (m, n), r = self.shape, self.rank
        middle, left, right = np.split(flat, [r * r, r * r + r * n])
        return middle.reshape(r, r), left.reshape(r, n), right.reshape(m, r)

    def sample(self, flat: np.ndarray) -> np.ndarray:
        """Observed entries of a matrix of the space."""
        middle, left, right = self.parts(flat)
        by_column = (middle @ self.right.T + left).T
        return np.einsum("er,er->e", self.left[self.i], by_column[self.j]) + np.einsum(
            "er,er->e", right[self.i], self.right[self.j]
        )

    def project(self, values: np.ndarray) -> np.ndarray:
        """The matrix of the space nearest to one that has ``values`` at the observed entries and is 0 elsewhere."""
        sparse = sp.csr_array((values, (self.i, self.j)), self.shape)
        rows, columns = (sparse.T @ self.left).T, sparse @ self.right
        middle = rows @ self.right
        return np.concatenate(
            [middle.ravel(), (rows - middle @ self.right.T).ravel(), (columns - self.left @ middle).ravel()]
        )

    def dense(self, flat: np.ndarray) -> np.ndarray:
        """The whole matrix."""
        middle, left, right = self.parts(flat)
        return self.left @ (middle @ self.right.T + left) + right @ self.right.T


def irls(problem: Problem, rank: int) -> Answer:
    """MatrixIRLS: X ← argmin <X, W(X)> that keeps the observed entries, W that of the smoothed log-determinant.

    W^-1 has weights max(s_i, eps) max(s_j, eps) in the singular vectors' basis: eps² times the identity, and D more on
    the tangent space T of the r vectors above eps. By Woodbury's identity X is g + A'(y - A g), with A the sampling and
    (eps² D^-1 + T'A'A T) g = T'A'y, which is well conditioned.
    """
    coo = sp.csr_array(problem.observed).tocoo()
    i, j, y = coo.row, coo.col, coo.data
    eps, smoothing, estimate = np.inf, [], coo.toarray()
    while len(smoothing) < IRLS_ITERATIONS:
        u, s, v = np.linalg.svd(estimate, full_matrices=False)
        eps = min(eps, float(s[rank]))
        smoothing.append(eps)
        above = max(int(np.count_nonzero(s > eps * (1 + 1e-9))), 1)
        u, s, v = u[:, :above], s[:above], v[:above]
        tangent, one = Tangent(u, v.T, i, j), eps / (s - eps)
        ridge = np.concatenate(
            [
                (eps**2 / (np.outer(s, s) - eps**2)).ravel(),
                np.repeat(one, len(v.T)),
                np.tile(one, len(u)),
            ]
        )
        system = sp.linalg.LinearOperator(
            (len(ridge), len(ridge)), lambda g, t=tangent, d=ridge: d * g + t.project(t.sample(g)), dtype=float
        )
        found, _ = sp.linalg.cg(system, tangent.project(y), rtol=IRLS_ACCURACY, maxiter=IRLS_GRADIENTS)
        estimate = tangent.dense(found)
        estimate[i, j] = y
        stalled = len(smoothing) > 10 and eps > IRLS_STALL * smoothing[-11]
        if eps < IRLS_END * smoothing[0] or stalled:
            break
    return Answer(estimate, None, len(smoothing))


PLAIN: dict[str, Any] = {"features": "factored", "callbacks": [lambda iteration: iteration.stage == "search"]}
"""The loop alone: a callback ends the recovery that the defaults try after it."""
ROWS: dict[str, Callable[[Problem, int], Answer]] = {
    "exact": lambda problem, _: ours(problem, noise=0),
    "auto": lambda problem, _: ours(problem),
    "both": lambda problem, cap: ours(problem, sides="both", rank=cap, **PLAIN),
    "columns": lambda problem, cap: ours(problem, sides="columns", rank=cap, **PLAIN),
    "als true": lambda problem, _: als(problem, problem.rank),
    "als cap": lambda problem, cap: als(problem, cap),
    "matrixirls": lambda problem, _: irls(problem, problem.rank),
}


def show(name: str, problems: list[Problem], cap: int) -> None:
    """Run a method on all problems and print its line."""
    errors, seconds, answers = [], [], []
    for problem in problems:
        started = time.perf_counter()
        answers.append(ROWS[name](problem, cap))
        seconds.append(time.perf_counter() - started)
        errors.append(problem.error(answers[-1].completed))
    right = sum(error < LIMIT for error in errors)
    found = [answer.rank for answer in answers if answer.rank is not None]
    ranks = f"rank found in {sum(rank == problems[0].rank for rank in found):2d}" if found else ""
    iterations = np.median([answer.iterations for answer in answers])
    print(
        f"  {name:11} {right:2d} of {len(problems)}  {ranks:17} iterations {iterations:4.0f}"
        f"  seconds {np.median(seconds):6.2f}  error {np.median(errors):.0e}",
        flush=True,
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--size", type=int, default=500, help="of rows, and of columns unless given")
    arguments.add_argument("--columns", type=int)
    arguments.add_argument("--rank", type=int, default=5)
    arguments.add_argument("--oversampling", type=float, nargs="+", default=[2.0, 1.6, 1.4, 1.2, 1.1, 1.05])
    arguments.add_argument("--seeds", type=int, default=10)
    arguments.add_argument("--cap", type=int, default=20)
    arguments.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    options = arguments.parse_args()
    m, n = options.size, options.columns or options.size
    ours(Problem(60, 50, 2, 2.0, 0), noise=0)  # compiled before anything is timed
    for oversampling in options.oversampling:
        problems = [Problem(m, n, options.rank, oversampling, seed) for seed in range(options.seeds)]
        print(f"{m} x {n}, rank {options.rank}, {oversampling} times the degrees of freedom,", end=" ")
        print(f"{problems[0].observed.nnz} observed entries, {np.mean(problems[0].scored):.2f} of the matrix scored")
        for name in options.rows:
            show(name, problems, options.cap)


if __name__ == "__main__":
    main()
