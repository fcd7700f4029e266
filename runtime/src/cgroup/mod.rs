//! Control groups: making, bounding, measuring and emptying them, on v1 and v2.
