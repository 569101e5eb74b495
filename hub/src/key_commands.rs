//! `llm-config-hub keys`: looking after the key-encryption key, also while hubs run.

use clap::ValueEnum;

use crate::config::Config;
use crate::journal::Database;
use crate::journal::dialect::Dialect;
use crate::secrets::{
    self, Counts, KeyProvider as _, KeyVersion, ProviderKind, Providers, SecretError, existing_providers,
};

/// What is done with the key-encryption key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeyCommand {
    /// Which key wraps what is stored, and which one wraps from now on
    Status,
    /// Make a new version of the key, which wraps from now on
    Rotate,
    /// Wrap everything by the key that the settings name now, in its newest version; hubs may be running
    Rewrap,
    /// Take keys that wrap nothing any more out of the local keyring
    Forget,
}

/// Does it, and says so line by line.
///
/// # Errors
/// When a key or the database cannot be used. Whatever was done by then stays done, and running it again does the rest.
pub async fn perform<D: Dialect>(
    config: &Config,
    database: &Database<D>,
    command: KeyCommand,
    say: impl Fn(&str),
) -> Result<(), SecretError> {
    let providers = existing_providers(database, &config.secrets).await?;
    match command {
        KeyCommand::Status => {
            let counts = secrets::count(database).await?;
            tell(&providers.current().await?, &counts, &say);
            if let Some(keyring) = providers.local() {
                say(&format!("the local keyring is {}", keyring.sealed_by()));
            }
        }
        KeyCommand::Rotate => {
            let current = providers.rotate().await?;
            say(&format!("wraps from now on: {current}"));
            if current.provider == ProviderKind::Local {
                say(
                    "copy the keyring to the other machines of this hub, if there are any, before the next step",
                );
            }
            say("next: llm-config-hub keys rewrap");
        }
        KeyCommand::Rewrap => {
            move_with_keychain(&providers, &say).await?;
            let changed = secrets::rewrap(database, &providers, |step| {
                say(&format!("{} of {}: {} (was under {})", step.number, step.of, step.name, step.from));
            });
            say(&format!("wrapped anew: {}", changed.await?));
            let counts = secrets::count(database).await?;
            tell(&providers.current().await?, &counts, say);
        }
        KeyCommand::Forget => {
            let forgotten = forget(database, &providers).await?;
            say(&format!("taken out of the keyring: {forgotten}"));
        }
    }
    Ok(())
}

/// A keyring that goes into the keychain, or comes out of it, gets a key that was never where it was before. With a passphrase
/// that is a step of its own (`rotate`): other machines have copies of such a keyring, and need the new key first.
async fn move_with_keychain(providers: &Providers, say: impl Fn(&str)) -> Result<(), SecretError> {
    let Some(keyring) = providers.local().filter(|keyring| keyring.is_to_move()) else { return Ok(()) };
    if providers.current().await?.provider != ProviderKind::Local {
        return Ok(());
    }
    keyring.add_key()?;
    say(&format!("the keyring is {} now, and has a new key", keyring.sealed_by()));
    Ok(())
}

async fn forget<D: Dialect>(database: &Database<D>, providers: &Providers) -> Result<usize, SecretError> {
    let Some(keyring) = providers.local() else {
        return Ok(0);
    };
    let used: Vec<KeyVersion> = secrets::count(database).await?.into_keys().collect();
    Ok(keyring.forget_unused(&used)?)
}

fn tell(current: &KeyVersion, counts: &Counts, say: impl Fn(&str)) {
    for (version, count) in counts {
        let note = if version == current { "" } else { "  <- llm-config-hub keys rewrap" };
        say(&format!("{count:>6} under {version}{note}"));
    }
    if !counts.contains_key(current) {
        say(&format!("     0 under {current}, which wraps from now on"));
    }
}
