//! The Secret Service of Linux. What goes over the bus is encrypted for the session (Diffie-Hellman, AES), so that whoever
//! watches the bus does not read along.
#![allow(clippy::wildcard_enum_match_arm, reason = "errors of libraries, which may get more")]

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use secret_service::{EncryptionType, Error, SecretService};
use zbus::connection::Builder;
use zbus::fdo;
use zeroize::Zeroizing;

use crate::{ItemName, Keychain, KeychainError};

/// Some ask on a screen whether this program may: who sits there has so long to say so, and nobody waits longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How D-Bus names that it is locked.
const IS_LOCKED: &str = "org.freedesktop.Secret.Error.IsLocked";

pub(crate) fn put(
    keychain: &Keychain,
    item: &ItemName,
    label: &str,
    secret: &[u8],
) -> Result<(), KeychainError> {
    in_time(async {
        let service = connect(keychain).await?;
        let collection = service.get_default_collection().await.map_err(|error| match error {
            Error::NoResult => KeychainError::Locked,
            other => told(other),
        })?;
        if collection.is_locked().await.map_err(told)? {
            return Err(KeychainError::Locked);
        }
        let attributes = attributes(item);
        let made = collection.create_item(label, attributes, secret, true, "application/octet-stream").await;
        made.map(drop).map_err(told)
    })
}

pub(crate) fn get(keychain: &Keychain, item: &ItemName) -> Result<Zeroizing<Vec<u8>>, KeychainError> {
    in_time(async {
        let service = connect(keychain).await?;
        let found = service.search_items(attributes(item)).await.map_err(told)?;
        if let Some(found) = found.unlocked.first() {
            return found.get_secret().await.map(Zeroizing::new).map_err(told);
        }
        if !found.locked.is_empty() || !is_open(&service).await? {
            return Err(KeychainError::Locked);
        }
        Err(KeychainError::Missing { item: item.clone() })
    })
}

/// Also when it was not there: then there is nothing to do.
pub(crate) fn remove(keychain: &Keychain, item: &ItemName) -> Result<(), KeychainError> {
    in_time(async {
        let service = connect(keychain).await?;
        let found = service.search_items(attributes(item)).await.map_err(told)?;
        if !found.locked.is_empty() || (found.unlocked.is_empty() && !is_open(&service).await?) {
            return Err(KeychainError::Locked);
        }
        for item in &found.unlocked {
            item.delete().await.map_err(told)?;
        }
        Ok(())
    })
}

/// A keychain that nobody has opened since it started may not even know what it has.
async fn is_open(service: &SecretService<'_>) -> Result<bool, KeychainError> {
    match service.get_default_collection().await {
        Ok(collection) => Ok(!collection.is_locked().await.map_err(told)?),
        Err(Error::NoResult) => Ok(false),
        Err(error) => Err(told(error)),
    }
}

fn attributes(item: &ItemName) -> HashMap<&str, &str> {
    HashMap::from([("application", "llm-config"), ("item", item.as_str())])
}

async fn connect(keychain: &Keychain) -> Result<SecretService<'static>, KeychainError> {
    let bus = match &keychain.bus {
        Some(address) => Builder::address(address.as_str()),
        None => Builder::session(),
    };
    let bus = match bus {
        Ok(bus) => bus.build().await,
        Err(error) => Err(error),
    };
    let bus =
        bus.map_err(|error| KeychainError::Away { why: format!("there is no session bus ({error})") })?;
    SecretService::connect_with_existing(EncryptionType::Dh, bus).await.map_err(told)
}

fn told(error: Error) -> KeychainError {
    let away = |why: &str| KeychainError::Away { why: why.to_owned() };
    match error {
        Error::Locked => KeychainError::Locked,
        Error::Unavailable => away("there is no keychain on the session bus"),
        Error::Prompt => {
            KeychainError::Refused { why: "what it asked on the screen was declined".to_owned() }
        }
        Error::PromptDisconnected => away("it ended while it asked something on the screen"),
        Error::ZbusFdo(fdo::Error::ZBus(error)) | Error::Zbus(error) => of_bus(error),
        Error::ZbusFdo(fdo::Error::ServiceUnknown(_) | fdo::Error::NameHasNoOwner(_)) => {
            away("there is no keychain on the session bus")
        }
        Error::ZbusFdo(fdo::Error::NoReply(_) | fdo::Error::Disconnected(_)) => away("it ended meanwhile"),
        other => KeychainError::Refused { why: other.to_string() },
    }
}

fn of_bus(error: zbus::Error) -> KeychainError {
    match &error {
        zbus::Error::MethodError(name, _, _) if name.as_str() == IS_LOCKED => KeychainError::Locked,
        zbus::Error::MethodError(name, _, _) => {
            let named = |ending: &str| name.as_str().ends_with(ending);
            if named(".ServiceUnknown") || named(".NameHasNoOwner") || named(".NoReply") || named("NoSession")
            {
                return KeychainError::Away {
                    why: format!("there is no keychain on the session bus ({name})"),
                };
            }
            KeychainError::Refused { why: error.to_string() }
        }
        zbus::Error::InputOutput(_) => {
            KeychainError::Away { why: format!("the session bus is gone ({error})") }
        }
        zbus::Error::FDO(inner) if matches!(**inner, fdo::Error::ServiceUnknown(_)) => {
            KeychainError::Away { why: "there is no keychain on the session bus".to_owned() }
        }
        _ => KeychainError::Refused { why: error.to_string() },
    }
}

/// On a thread of its own: whoever asks may be inside a runtime. Given up in the middle, what was asked may still happen.
fn in_time<T: Send>(
    asked: impl Future<Output = Result<T, KeychainError>> + Send,
) -> Result<T, KeychainError> {
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| KeychainError::Away { why: error.to_string() })?;
            let answer = runtime.block_on(async {
                tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(KeychainError::Silent))
            });
            // Whatever still waits is not waited for.
            runtime.shutdown_background();
            answer
        });
        asking.join().unwrap_or_else(|_| Err(KeychainError::Refused { why: "asking it failed".to_owned() }))
    })
}
