"""The loader: plan, pond, arena, supervisor and dataset put together."""
