//! Where rows lie: namespaces by number, keys without what they share with the one before.

use super::words::{Dictionary, Differences};
use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::Row;
use crate::feed::Feed;
use crate::limits::{KEY_BYTES_MAX, NAMESPACE_BYTES_MAX};
use crate::name::{EntryKey, Key, Namespace, Scope};

fn shared_prefix(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

pub(super) fn write(out: &mut Writer, rows: &[&Row]) {
    let mut namespaces = Dictionary::new();
    let numbers: Vec<u64> = rows.iter().map(|row| namespaces.number(&row.at.scope.namespace)).collect();
    out.uint(namespaces.values.len() as u64);
    for namespace in &namespaces.values {
        out.str(namespace.as_str());
    }
    let mut before = Differences::default();
    for number in numbers {
        before.write(out, number);
    }
    let keys = || rows.iter().map(|row| row.at.key.as_str());
    let shared: Vec<usize> = std::iter::once("")
        .chain(keys())
        .zip(keys())
        .map(|(previous, key)| shared_prefix(previous, key))
        .collect();
    for shared in &shared {
        out.uint(*shared as u64);
    }
    for (key, shared) in keys().zip(&shared) {
        out.uint((key.len() - shared) as u64);
    }
    for (key, shared) in keys().zip(&shared) {
        out.raw(&key.as_bytes()[*shared..]);
    }
}

pub(super) fn read(reader: &mut Reader<'_>, feed: &Feed, count: usize) -> Result<Vec<EntryKey>, DecodeError> {
    let scopes = read_scopes(reader, feed, count)?;
    let mut numbers = Differences::default();
    let mut of_rows = Vec::with_capacity(count);
    for _ in 0..count {
        let number = numbers.read(reader, "namespace")? as usize;
        of_rows.push(scopes.get(number).ok_or(DecodeError::Invalid("namespace"))?);
    }
    let mut shared = Vec::with_capacity(count);
    for _ in 0..count {
        shared.push(reader.count(KEY_BYTES_MAX, "key")?);
    }
    let mut own = Vec::with_capacity(count);
    for _ in 0..count {
        own.push(reader.count(KEY_BYTES_MAX, "key")?);
    }
    let mut keys: Vec<EntryKey> = Vec::with_capacity(count);
    let mut text: Vec<u8> = Vec::new();
    for ((scope, shared), own) in of_rows.into_iter().zip(shared).zip(own) {
        if shared > text.len() {
            return Err(DecodeError::Invalid("key"));
        }
        text.truncate(shared);
        text.extend_from_slice(reader.raw(own, "key")?);
        let key = std::str::from_utf8(&text).ok().and_then(|text| Key::parse(text).ok());
        let at = EntryKey { scope: scope.clone(), key: key.ok_or(DecodeError::Invalid("key"))? };
        if !feed.contains(&at) || keys.last().is_some_and(|before| *before >= at) {
            return Err(DecodeError::Invalid("order of keys"));
        }
        keys.push(at);
    }
    Ok(keys)
}

fn read_scopes(reader: &mut Reader<'_>, feed: &Feed, count: usize) -> Result<Vec<Scope>, DecodeError> {
    let namespaces = reader.count(count, "namespaces")?;
    let mut scopes = Vec::with_capacity(namespaces);
    for _ in 0..namespaces {
        let text = reader.str(NAMESPACE_BYTES_MAX, "namespace")?;
        let namespace = Namespace::parse(text).map_err(|_| DecodeError::Invalid("namespace"))?;
        let tenant = feed.tenant.clone();
        scopes.push(Scope { tenant, environment: feed.environment.clone(), namespace });
    }
    Ok(scopes)
}
