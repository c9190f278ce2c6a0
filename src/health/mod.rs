//! Health: active checks, and what keeps the set true to what is really up.
//!
//! A [`Check`] asks one backend one question. The built-in ones, a file each:
//!
//! | check | asks |
//! |---|---|
//! | [`TcpCheck`] | does it take a connection; optionally: does it answer these bytes with those |
//! | [`UdpCheck`] | is the port open; optionally: does the right reply come |
//! | [`IcmpCheck`] | does the host answer an echo |
//! | `DnsCheck` | does a name server answer, and answer it right (feature `health-dns`) |
//! | [`CommandCheck`] | a program of yours, by its exit code |
//! | [`FileCheck`] | what a file says, or whether it exists |

mod check;
mod checks;

pub use self::check::{Check, Failure, FailureKind, Probe, Report};
pub use self::checks::*;
