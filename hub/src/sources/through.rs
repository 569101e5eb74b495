//! Sources that are written through: a namespace and a path of Vault that are kept the same, whoever writes where.
//!
//! How both sides were when they were last the same is written down, so that it is known which of them has changed since,
//! also by whoever leads next. Each secret is brought over by itself: first written, then written down. A crash between
//! the two leaves two sides that have changed and are the same, which is found by comparing them. Vault takes a version
//! only after the one that was seen, and so does the hub: what somebody wrote meanwhile is decided at the next look.

use std::collections::BTreeSet;

use llm_config_shared::entry::{Content, HubRow};
use llm_config_shared::name::Key;
use llm_config_shared::replication::admit::{OpAction, SetValue};
use llm_config_shared::store::Journal;

use super::{Follower, LookError};
use crate::config::Source;
use crate::registry::{Registry, Versions};
use crate::secrets::vault::kv::KvVersion;

/// What makes both sides of one secret the same again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    ToVault,
    FromVault,
}

/// When both have changed, Vault's holds, for that is where the secret lives; what was written here stays in the history.
/// Only where Vault has nothing any more, a new value here is a new secret.
fn step(before: Versions, now: Versions) -> Step {
    match (now.vault != before.vault, now.entry != before.entry) {
        (false, false) => Step::Nothing,
        (false, true) => Step::ToVault,
        (true, true) if now.vault.is_none() && now.entry.is_some() => Step::ToVault,
        (true, _) => Step::FromVault,
    }
}

/// One secret on both sides.
struct Pair {
    key: Key,
    at: String,
    vault: Option<KvVersion>,
    row: Option<HubRow>,
}

impl Pair {
    fn versions(&self) -> Versions {
        let vault = self.vault.filter(|version| version.live).map(|version| version.number);
        Versions { vault, entry: self.row.as_ref().map(|row| row.row.version) }
    }
}

impl<S: Journal + Registry> Follower<S> {
    /// Makes both sides the same, where either has changed.
    pub(super) async fn reconcile(&self) -> Result<(), LookError> {
        let Source { mount, path, .. } = &self.source;
        let known = self.journal.source_keys(&self.identity()).await?;
        let listed = self.vault.kv_list(mount, path).await?;
        if listed.is_empty() && known.values().any(|versions| versions.vault.is_some()) {
            return Err(LookError::Empty(format!("{mount}/{path}")));
        }
        let (keys, odd): (Vec<_>, Vec<_>) =
            listed.into_iter().map(|name| Key::parse(&name).map_err(|_| name)).partition(Result::is_ok);
        let listed: BTreeSet<Key> = keys.into_iter().flatten().collect();
        let mut rows = self.rows().await?;
        let keys: BTreeSet<Key> = listed.iter().chain(rows.keys()).chain(known.keys()).cloned().collect();
        let mut refused = 0;
        for key in keys {
            let at = format!("{path}/{key}");
            let vault = if listed.contains(&key) { self.vault.kv_version(mount, &at).await? } else { None };
            let pair = Pair { row: rows.remove(&key), vault, at, key };
            let before = known.get(&pair.key).copied().unwrap_or_default();
            if !self.bring(pair, before).await? {
                refused += 1;
            }
        }
        match odd.into_iter().filter_map(Result::err).collect::<Vec<_>>() {
            odd if !odd.is_empty() => Err(LookError::Names { count: odd.len(), first: odd[0].clone() }),
            _ if refused > 0 => Err(LookError::Refused(refused)),
            _ => Ok(()),
        }
    }

    /// From where to where: another path or namespace begins anew.
    fn identity(&self) -> String {
        let Source { mount, path, tenant, namespace, environment, .. } = &self.source;
        format!("{mount}/{path} {tenant}/{environment}/{namespace}")
    }

    /// False when this secret could not be brought over, which the log says.
    async fn bring(&self, pair: Pair, before: Versions) -> Result<bool, LookError> {
        let now = pair.versions();
        if pair.row.as_ref().is_some_and(|row| !row.row.content.is_secret()) {
            // Configuration that lies beside secrets is not Vault's, and no secret is made of it or deleted for it.
            let alone = now.vault.is_none();
            if !alone {
                tracing::warn!(source = %self.source.name, key = %pair.key, "is a secret in Vault and none here");
            }
            return Ok(alone);
        }
        let same = match step(before, now) {
            Step::Nothing => return Ok(true),
            Step::ToVault => self.bring_to_vault(&pair, now).await?,
            Step::FromVault => self.take_from_vault(&pair, now).await?,
        };
        if let Some(versions) = same {
            self.journal.note_source_key(&self.identity(), &pair.key, versions).await?;
        }
        Ok(same.is_some())
    }

    /// How both are now; none when Vault has another version meanwhile.
    async fn bring_to_vault(&self, pair: &Pair, now: Versions) -> Result<Option<Versions>, LookError> {
        let mount = &self.source.mount;
        let last = pair.vault.map_or(0, |version| version.number);
        let Some(HubRow { row, .. }) = &pair.row else {
            if now.vault.is_some() {
                self.vault.kv_delete(mount, &pair.at, last).await?;
            }
            return Ok(Some(Versions::default()));
        };
        let Content::Secret(sealed) = &row.content else { return Ok(None) };
        let value = self.secrets.open(&row.at, sealed).await?;
        let number = self.vault.kv_write(mount, &pair.at, &value, last).await?;
        if number.is_none() {
            tracing::info!(source = %self.source.name, key = %pair.key, "Vault has another version by now; looking again");
        }
        Ok(number.map(|number| Versions { vault: Some(number), entry: now.entry }))
    }

    /// How both are now; none when the hub has another version meanwhile, or cannot take it.
    async fn take_from_vault(&self, pair: &Pair, now: Versions) -> Result<Option<Versions>, LookError> {
        let Some(number) = now.vault else {
            let gone = Some(Versions::default());
            if now.entry.is_none() {
                return Ok(gone);
            }
            return Ok(self.submit(pair, OpAction::Delete).await?.and(gone));
        };
        let value = self.vault.kv_read(&self.source.mount, &pair.at, number).await?;
        let Some(value) = value else { return Ok(None) };
        if self.holds(&pair.key, &value).await? {
            return Ok(Some(now));
        }
        let set = OpAction::Set { value: SetValue::Secret(value.into()), tags: None, description: None };
        let entry = self.submit(pair, set).await?;
        Ok(entry.map(|entry| Versions { vault: now.vault, entry: Some(entry) }))
    }

    /// The version that came of it; none when it was refused.
    async fn submit(&self, pair: &Pair, action: OpAction) -> Result<Option<u64>, LookError> {
        let shown = pair.row.as_ref().map_or(0, |row| row.row.version);
        let mut operation = self.operation(pair.key.clone(), action);
        operation.if_version = Some(shown);
        Ok(self.write_batch(vec![operation]).await?.pop().and_then(|outcome| outcome.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_since_both_were_the_same_is_brought_over_and_vault_holds_when_both_have() {
        let both = |vault: u64, entry: u64| {
            let some = |version| (version > 0).then_some(version);
            Versions { vault: some(vault), entry: some(entry) }
        };
        for (before, now, expected) in [
            (both(0, 0), both(0, 0), Step::Nothing),
            (both(3, 7), both(3, 7), Step::Nothing),
            (both(0, 0), both(0, 1), Step::ToVault),
            (both(3, 7), both(3, 8), Step::ToVault),
            (both(3, 7), both(3, 0), Step::ToVault),
            (both(0, 0), both(1, 0), Step::FromVault),
            (both(3, 7), both(4, 7), Step::FromVault),
            (both(3, 7), both(0, 7), Step::FromVault),
            (both(0, 0), both(1, 1), Step::FromVault),
            (both(3, 7), both(4, 8), Step::FromVault),
            (both(3, 7), both(0, 0), Step::FromVault),
            (both(3, 7), both(4, 0), Step::FromVault),
            (both(3, 7), both(0, 8), Step::ToVault),
        ] {
            assert_eq!(step(before, now), expected, "{before:?} {now:?}");
        }
    }
}
