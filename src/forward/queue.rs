//! Waiting for a place when every backend is at its limit.
