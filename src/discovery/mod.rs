//! Discovery: where the members of a set come from.
