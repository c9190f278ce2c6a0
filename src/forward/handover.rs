//! Passing listening sockets to a successor process, so that a restart refuses nobody.
