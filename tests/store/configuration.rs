//! The files under `redis/` load.
