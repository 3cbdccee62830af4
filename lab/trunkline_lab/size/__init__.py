"""Bytes, memory and milliseconds of bundles, beside as many separate models as they have tasks."""
