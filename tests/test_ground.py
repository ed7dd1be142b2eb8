"""What the libraries below do with valid input, and what is kept right all the same; each names version and source."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from dask import delayed
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rfmdist import LinRFM
from rfmdist.errors import InputError
from rfmdist.features.factored import sum_of_squares
from rfmdist.features.protocol import Scores
from rfmdist.kernels import factored as kernels
from rfmdist.observations import loops
from rfmdist.observations.convert import _joined
from rfmdist.observations.layout import FILL, create_array, stored_index_dtype
from rfmdist.observations.offsets import fit_offsets
from rfmdist.observations.store import Observations
from rfmdist.observations.summary import summarize

FORMATS = ["csr", "csc", "coo", "lil", "dok"]


@pytest.fixture
def ratings(rng: np.random.Generator) -> Any:
    """Give a CSR array of 30 x 20, some of whose stored values are 0."""
    found = sp.random_array((30, 20), density=0.4, rng=rng, format="csr")
    found.data[::3] = 0
    return found


def mixed(matrix: Any, indices: Any, pointers: Any) -> Any:
    """Return a CSR matrix with these index types, set one by one, as anndata's ``read_elem`` sets them (0.12.19)."""
    found = sp.csr_matrix(matrix.shape)
    found.data, found.indices, found.indptr = (
        matrix.data,
        matrix.indices.astype(indices),
        matrix.indptr.astype(pointers),
    )
    return found


def same_entries(found: Any, wanted: Any) -> bool:
    """Whether two matrices store the same entries, zeros included."""
    a, b = (sp.csr_array(matrix) for matrix in (found, wanted))
    return all(np.array_equal(getattr(a, part), getattr(b, part)) for part in ("data", "indices", "indptr"))


# ---- index types (scipy 1.17.1: conversions of a CSR matrix with two raise; its constructor makes them one) ------


@pytest.mark.parametrize(("indices", "pointers"), [("int32", "int64"), ("uint8", "int32"), ("uint32", "int64")])
def test_a_matrix_of_two_index_types_comes_in(ratings: Any, indices: str, pointers: str) -> None:
    """What AnnData reads, with the types that lay on disk, is stored, fitted and scored, and is not changed."""
    given_ = mixed(ratings, indices, pointers)
    with pytest.raises(ValueError, match="not compatible"):
        given_.tocoo()
    assert same_entries(Observations.from_scipy(given_).to_scipy(), ratings)
    blocks = da.from_delayed(delayed(given_), given_.shape, dtype=given_.dtype)
    assert same_entries(Observations.from_dask(blocks).to_scipy(), ratings)
    model = LinRFM(rank=2, ridge=1.0, replacement=1.0, validation_fraction=0, max_iter=2)
    assert model.fit(given_).score(given_) == model.fit(ratings).score(ratings)
    assert (given_.indices.dtype, given_.indptr.dtype) == (indices, pointers)


def test_a_matrix_that_is_not_sound_is_refused(ratings: Any) -> None:
    """Row pointers and indices that do not fit together are told in one sentence."""
    for part, value in (("indices", 20), ("indptr", 10**6)):
        broken = ratings.copy()
        getattr(broken, part)[3] = value
        with pytest.raises(InputError, match=r"^observations: not a sound sparse matrix \([^:]*\); make it anew$"):
            Observations.from_scipy(broken)


def test_a_store_has_one_index_type(tmp_path: Path, ratings: Any) -> None:
    """Both orders of a store have int32 throughout, so that whoever reads them as they lie can convert them."""
    Observations.from_scipy(ratings, tmp_path / "s").by_column()
    for name in ("X", "X/by_column"):
        group: Any = zarr.open_group(tmp_path / "s")[name]
        assert group["indices"].dtype == group["indptr"].dtype == np.int32
        arrays = [group[part][:] for part in ("data", "indices", "indptr")]
        found = mixed(sp.csr_array(tuple(arrays), shape=group.attrs["shape"]), *(a.dtype for a in arrays[1:]))
        assert same_entries(found.tocoo(), ratings if name == "X" else ratings.T)


def test_anndata_reads_a_matrix_that_converts(tmp_path: Path, ratings: Any) -> None:
    """``X`` as anndata reads it can be converted, searched and fitted."""
    anndata = pytest.importorskip("anndata")
    ids = {
        axis: [f"{axis}{k}" for k in range(size)]
        for axis, size in zip(("row_ids", "column_ids"), (30, 20), strict=True)
    }
    Observations.from_scipy(ratings, tmp_path / "s", **ids)
    found = anndata.read_zarr(tmp_path / "s").X
    assert same_entries(found.tocoo(), ratings)
    assert len(found.nonzero()[0]) == np.count_nonzero(ratings.data)
    assert same_entries(Observations.from_scipy(found).to_scipy(), ratings)


@pytest.mark.parametrize(("columns", "entries"), [(2**31, 5), (7, 2**31 - 1)])
def test_both_types_grow_together(columns: int, entries: int) -> None:
    """Pointers past 2^31 - 2 entries, or codes of 2^31 columns, need int64; one less of either is int32 throughout."""
    assert stored_index_dtype(columns, entries) == np.int64
    assert stored_index_dtype(min(columns, 2**31 - 1), min(entries, 2**31 - 2)) == np.int32


@pytest.mark.parametrize(("indices", "pointers"), [("int32", "int64"), ("int64", "int64")])
def test_any_index_types_of_a_store_are_read(tmp_path: Path, ratings: Any, indices: str, pointers: str) -> None:
    """Earlier stores and wide ones give the same blocks; what AnnData wrote, in uint8 if that holds it, is refused."""
    wide = sp.csr_array((ratings.data, ratings.indices * 13, ratings.indptr), shape=(30, 256))
    wide.indices[-1] = 255
    Observations.from_scipy(wide, tmp_path / "s")
    group: Any = zarr.open_group(tmp_path / "s")["X"]
    for part, dtype in (("indices", indices), ("indptr", pointers)):
        values = group[part][:]
        del group[part]
        create_array(group, part, len(values), np.dtype(dtype), FILL[part])[:] = values
    found = Observations.open(tmp_path / "s")
    block = found.row_block(0, 30)
    assert (block.indices.dtype, block.indptr.dtype) == (np.int32, np.int64)
    assert same_entries(found.to_scipy(), wide)
    assert same_entries(found.by_column().to_scipy().T, wide)


@pytest.mark.parametrize("rows", [0, 30])
def test_small_matrices_have_small_indices(ratings: Any, rows: int) -> None:
    """What goes out has int32 throughout: scikit-learn 1.9.1's KMeans, among others, refuses int64."""
    found = Observations.from_scipy(ratings[:rows]).to_scipy()
    assert found.indices.dtype == found.indptr.dtype == np.int32
    assert {codes.dtype for codes in found.tocoo().coords} == {np.dtype(np.int32)}


def test_kmeans_takes_what_goes_out(ratings: Any) -> None:
    """scikit-learn clusters the rows of a store."""
    from sklearn.cluster import KMeans

    found = KMeans(2, n_init=1, random_state=0).fit(Observations.from_scipy(ratings).to_scipy())
    assert set(found.labels_) == {0, 1}


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8])
def test_blocks_side_by_side_of_narrow_codes(kind: Any) -> None:
    """Codes of a block's columns are widened before what lies to its left is added."""
    part = sp.coo_array(([1.0], ([0], [3])), shape=(1, 2**31 - 1))
    part.coords = tuple(codes.astype(kind) for codes in part.coords)
    assert _joined([part, part], (2**31 - 1,) * 2)[1].tolist() == [3, 2**31 + 2]


# ---- stored zeros (sparse 0.19.3: COO.from_scipy_sparse drops those of CSC, BSR and COO, of COO in place) --------


@pytest.mark.parametrize("name", FORMATS)
def test_stored_zeros_are_kept(ratings: Any, name: str) -> None:
    """An observed zero stays one on every way in, and what is given stays as it is."""
    given_ = ratings.asformat(name, copy=True)
    before = given_.copy()
    blocks = da.from_delayed(delayed(given_), given_.shape, dtype=given_.dtype)
    for found in (Observations.from_scipy(given_), Observations.from_dask(blocks)):
        assert found.nnz == before.nnz
        assert same_entries(found.to_scipy(), before)
        assert found.to_dask().compute().nnz == before.nnz
    assert same_entries(given_, before)


# ---- chunks (anndata 0.12.19 and 0.13.4 cut a dask array of CSR blocks into chunks as long as its first) ---------


def test_a_nearly_empty_first_block_sets_no_chunks(tmp_path: Path, rng: np.random.Generator) -> None:
    """Chunks of a store are as long as ever, whatever the first block of a dask array holds."""
    parts = [sp.random_array((100, 50), density=density, rng=rng, format="csr") for density in (0.0002, 0.5, 0.5)]
    blocks = [da.from_delayed(delayed(part), part.shape, meta=sp.csr_array((0, 0))) for part in parts]
    Observations.from_dask(da.concatenate(blocks), tmp_path / "s")
    assert zarr.open_array(tmp_path / "s" / "X" / "data").nchunks == 1
    assert same_entries(Observations.open(tmp_path / "s").to_scipy(), sp.vstack(parts))


# ---- sums (scipy 1.17.1: float32 column sums of CSR stop at 2^24; numba 0.68.1 adds float32 one by one) ----------

FLOATS = hnp.arrays(np.float32, st.integers(1, 200), elements=st.floats(-(2.0**14), 2.0**14, width=32))
MANY = 20_000_000
"""Values of 0.1 whose float32 mean, made one by one, is 5 % too large."""


@settings(deadline=None, max_examples=30)
@given(FLOATS)
def test_means_are_those_of_exact_sums(values: Any) -> None:
    """The mean, the deviation and the offset of a row of float32 values are those of the exact sums."""
    row = sp.coo_array((values, (np.zeros(len(values), int), np.arange(len(values)))), shape=(1, len(values)))
    observations, wide = Observations.from_scipy(row), values.astype(np.float64)
    mean = math.fsum(wide) / len(wide)
    deviation = math.sqrt(math.fsum((wide - mean) ** 2) / len(wide))
    found, size = summarize(observations), float(np.abs(wide).max())
    assert found.mean == pytest.approx(mean, rel=0, abs=1e-13 * size)
    assert found.deviation == pytest.approx(deviation, rel=0, abs=1e-6 * size)
    offsets = fit_offsets(observations, "rows", shrinkage=0)
    assert offsets.mean + offsets.rows[0] == pytest.approx(mean, rel=0, abs=1e-12 * size)


@settings(deadline=None)
@given(FLOATS)
def test_scores_are_those_of_exact_sums(values: Any) -> None:
    """Errors at float32 values are summed as exactly as float64 allows."""
    found, wide = Scores.of(np.zeros(len(values)), values), values.astype(np.float64)
    assert found.mae == pytest.approx(math.fsum(np.abs(wide)) / len(wide), rel=1e-14)
    assert found.rmse == pytest.approx(math.sqrt(math.fsum(wide**2) / len(wide)), rel=1e-14)


@settings(deadline=None)
@given(FLOATS)
def test_squares_are_those_of_exact_sums(values: Any) -> None:
    """Squares of float32 residuals are summed in float64."""
    assert sum_of_squares(values) == pytest.approx(math.fsum(values.astype(np.float64) ** 2), rel=1e-14)


def test_twenty_million_values_in_a_row() -> None:
    """Offsets, squares and totals of a very long row of float32 values have the right mean."""
    values, zeros = np.full(MANY, 0.1, np.float32), np.zeros(MANY, np.int32)
    exact, ends, rows = float(values[0]), np.array([0, MANY]), np.empty(1)
    loops.row_offsets(ends, zeros, values, 0.0, np.zeros(1), 0.0, rows)
    assert rows[0] == pytest.approx(exact, rel=1e-8)
    assert kernels._sum(values, 0, MANY) == pytest.approx(MANY * exact, rel=1e-8)
    assert sum_of_squares(values) == pytest.approx(MANY * exact**2, rel=1e-8)


def test_a_long_column_read_by_stripes() -> None:
    """The sums of a column of millions of entries, against which its coefficients are solved, are float64."""
    values, rank = np.full(MANY // 8, 0.1, np.float32), 1
    ends, indices = np.array([0, len(values)]), np.arange(len(values), dtype=np.int32)
    factor, offsets = np.full((len(values), rank), 0.3, np.float32), np.zeros(len(values))
    sums = (
        np.zeros((1, rank, rank), np.float32),
        np.zeros((1, 2, rank)),
        np.zeros(1),
        np.zeros(1),
        np.zeros(1, np.int64),
    )
    kernels.add_stripe(ends, indices, values, factor, offsets, 0, 0, 1, *sums)
    exact = float(values[0]) * float(factor[0, 0]), float(factor[0, 0])
    assert sums[1][0, :, 0] == pytest.approx([len(values) * value for value in exact], rel=1e-7)
    assert sums[0][0, 0, 0] == pytest.approx(len(values) * exact[1] ** 2, rel=1e-3)
