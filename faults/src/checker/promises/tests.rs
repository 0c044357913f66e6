//! Made-up logs, good ones and such as break each promise.
