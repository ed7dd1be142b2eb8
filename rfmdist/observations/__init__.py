"""What was observed: the Zarr store, ingestion, splits, offsets."""

from importlib.util import find_spec

from rfmdist.machine import place_cupy

if find_spec("cupy") is not None:  # before Zarr, which imports it
    place_cupy()
