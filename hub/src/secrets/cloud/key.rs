//! Wrapping and unwrapping by one key of a cloud, whichever cloud it is.

use std::time::Duration;

use llm_config_shared::codec::Writer;
use llm_config_shared::seal::{NONCE_BYTES, open, seal};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::error::CloudError;
use super::gate::Gate;
use super::service::Service;
use super::wrapped::{MadeBy, Parts, write_header};
use super::{Boxed, Key};
use crate::secrets::local::{context, random};
use crate::secrets::provider::{KeyVersion, ProviderError, ProviderKind};

/// A rotation is done some time after it was asked for.
const ROTATION_LOOKS: u32 = 30;
const ROTATION_PAUSE: Duration = Duration::from_secs(1);

/// One key of one cloud.
pub(super) struct CloudKey<S> {
    gate: Gate,
    service: S,
}

impl<S: Service> CloudKey<S> {
    /// A request that takes longer than `timeout` counts as failed.
    pub(super) fn new(service: S, timeout: Duration) -> Self {
        Self { gate: Gate::new(timeout), service }
    }

    async fn look_after(&self, stop: CancellationToken) {
        self.gate.is_kept(true);
        let mut news = self.gate.news();
        loop {
            let at = self.gate.next_look();
            tokio::select! {
                () = stop.cancelled() => break,
                // A caller found out: there is another time to look now.
                _ = news.changed() => continue,
                () = tokio::time::sleep_until(at) => {}
            }
            // What came of it is noted at the gate.
            let _ = self.gate.look(S::KIND, self.service.current()).await;
        }
        self.gate.is_kept(false);
    }

    async fn wrap_under_fresh(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, ProviderError> {
        let fresh = self.gate.ask(S::KIND, "generate", self.service.fresh_data_key(name)).await?;
        let mut out = Writer::default();
        write_header(&mut out, &fresh.by, &fresh.wrapped);
        let header = out.finish();
        let nonce: [u8; NONCE_BYTES] = random()?;
        let sealed = seal(&fresh.key, nonce, &bound(&header, name), plain);
        let mut out = Writer::default();
        out.raw(&header);
        out.bytes(&sealed);
        Ok(out.finish())
    }

    async fn open_wrapped(&self, name: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
        let parts = Parts::of(wrapped).ok_or(ProviderError::NotWrapped)?;
        self.see_that_it_is_ours(&parts.by).await?;
        let asked = self.service.open_data_key(&parts.by, parts.wrapped_key, name);
        let key = self.gate.ask(S::KIND, "decrypt", asked).await?;
        let plain = open(&key, &bound(parts.header, name), parts.sealed);
        plain.map_err(|_| CloudError::CannotOpen { provider: S::KIND }.into())
    }

    /// Whoever can write into the database could name a key of their own there, which wraps what they chose.
    async fn see_that_it_is_ours(&self, by: &MadeBy) -> Result<(), CloudError> {
        if self.service.is_trusted(&by.key) {
            return Ok(());
        }
        // An alias may have moved since.
        let configured = self.now().await?.key;
        if configured == by.key {
            return Ok(());
        }
        Err(CloudError::OtherKey { provider: S::KIND, wrapped: by.key.clone(), configured })
    }

    async fn now(&self) -> Result<MadeBy, CloudError> {
        self.gate.ask(S::KIND, "read_key", self.service.current()).await
    }

    async fn renew(&self) -> Result<MadeBy, CloudError> {
        let before = self.now().await?;
        self.gate.ask(S::KIND, "rotate", self.service.rotate()).await?;
        for _ in 0..ROTATION_LOOKS {
            let now = self.now().await?;
            if now != before {
                return Ok(now);
            }
            tokio::time::sleep(ROTATION_PAUSE).await;
        }
        Err(CloudError::RotationUnderWay { provider: S::KIND })
    }
}

impl<S: Service> Key for CloudKey<S> {
    fn kind(&self) -> ProviderKind {
        S::KIND
    }

    fn trouble(&self) -> Option<String> {
        self.gate.trouble().map(|reason| format!("{} {reason}", S::KIND.title()))
    }

    fn keep(&self, stop: CancellationToken) -> Boxed<'_, ()> {
        Box::pin(self.look_after(stop))
    }

    fn wrap<'a>(&'a self, name: &'a str, plain: &'a [u8]) -> Boxed<'a, Result<Vec<u8>, ProviderError>> {
        Box::pin(self.wrap_under_fresh(name, plain))
    }

    fn unwrap<'a>(
        &'a self,
        name: &'a str,
        wrapped: &'a [u8],
    ) -> Boxed<'a, Result<Zeroizing<Vec<u8>>, ProviderError>> {
        Box::pin(self.open_wrapped(name, wrapped))
    }

    fn current(&self) -> Boxed<'_, Result<KeyVersion, ProviderError>> {
        Box::pin(async { Ok(self.now().await?.version()) })
    }

    fn rotate(&self) -> Boxed<'_, Result<KeyVersion, ProviderError>> {
        Box::pin(async { Ok(self.renew().await?.version()) })
    }
}

/// What the sealed part is bound to: all that stands before it, and the name.
fn bound(header: &[u8], name: &str) -> Vec<u8> {
    [header, &context(name)].concat()
}
