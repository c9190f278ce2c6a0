//! Many datagrams with one system call: `recvmmsg(2)` and `sendmmsg(2)`.
