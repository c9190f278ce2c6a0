//! Where in the kernel frames are carried.

use std::fmt;

/// Where the XDP program runs ([`PacketSettings::xdp_devices`](super::PacketSettings::xdp_devices)).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum XdpMode {
    /// In the device's driver, before the kernel makes a packet of a frame. The driver must have it.
    #[default]
    Native,
    /// In the kernel, in front of its own path, for every device: to try a configuration, and for tests. It saves little.
    /// Who sends to a virtual device must complete checksums by itself (`ethtool -K DEVICE tx off`).
    Generic,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}
