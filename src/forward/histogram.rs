//! How long things took, counted in buckets.
