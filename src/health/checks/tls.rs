//! The TLS check.

mod error;
mod settings;
mod verify;

pub use self::error::TlsSettingsError;
pub use self::settings::TlsSettings;
use crate::health::{Check, CheckContext, CheckFailure, CheckReport};

/// Makes a TLS handshake, and warns if the certificate expires soon.
///
/// # Examples
/// ```no_run
/// use lvs::health::{TlsSettings, TlsCheck};
///
/// let check = TlsCheck::new(TlsSettings::system_roots()?.server_name("www.example.org")?);
/// # let _ = check;
/// # Ok::<(), lvs::health::TlsSettingsError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TlsCheck {
    tls: TlsSettings,
}

impl TlsCheck {
    /// Makes a check that only makes the handshake.
    #[must_use]
    pub fn new(tls: TlsSettings) -> Self {
        Self { tls }
    }
}

impl Check for TlsCheck {
    async fn check(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
        let stream = context.connect().await?;
        let session = self.tls.handshake(context, stream, &[]).await?;
        Ok(match session.warning {
            Some(warning) => CheckReport::up().with_warning(warning),
            None => CheckReport::up(),
        })
    }

    fn name(&self) -> &str {
        "tls"
    }
}
