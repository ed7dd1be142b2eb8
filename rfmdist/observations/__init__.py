"""What was observed: the Zarr store, ingestion, splits, offsets."""
