"""Linear heads: convex fits, cross-validation, calibration."""
