//! The form of what a cloud wrapped: which key, in which version, the data key as that wrapped it, and what the data key
//! seals.

use llm_config_shared::codec::{Reader, Writer};

use crate::secrets::provider::{AWS_FORM, AZURE_FORM, GCP_FORM, KeyVersion, ProviderKind};

const NAME_BYTES_MAX: usize = 2_048;
const WRAPPED_BYTES_MAX: usize = 16 << 10;
const SEALED_BYTES_MAX: usize = 1 << 20;

/// A version of a key, as the cloud names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MadeBy {
    pub(super) provider: ProviderKind,
    pub(super) key: String,
    /// Empty where the cloud tells none.
    pub(super) version: String,
}

impl MadeBy {
    pub(super) fn version(&self) -> KeyVersion {
        let key = match self.version.as_str() {
            "" => self.key.clone(),
            version => format!("{} version {version}", self.key),
        };
        KeyVersion { provider: self.provider, key, version: None }
    }
}

/// All that stands before what is sealed, and that it is bound to.
pub(super) fn write_header(out: &mut Writer, by: &MadeBy, wrapped_key: &[u8]) {
    out.u8(match by.provider {
        ProviderKind::GcpKms => GCP_FORM,
        ProviderKind::AzureKeyVault => AZURE_FORM,
        ProviderKind::AwsKms | ProviderKind::Local | ProviderKind::Vault => AWS_FORM,
    });
    out.str(&by.key);
    out.str(&by.version);
    out.bytes(wrapped_key);
}

/// What is wrapped, taken apart.
pub(super) struct Parts<'a> {
    pub(super) by: MadeBy,
    pub(super) wrapped_key: &'a [u8],
    /// Everything up to here.
    pub(super) header: &'a [u8],
    pub(super) sealed: &'a [u8],
}

impl<'a> Parts<'a> {
    pub(super) fn of(wrapped: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(wrapped);
        let provider = match reader.u8("form").ok()? {
            AWS_FORM => ProviderKind::AwsKms,
            GCP_FORM => ProviderKind::GcpKms,
            AZURE_FORM => ProviderKind::AzureKeyVault,
            _ => return None,
        };
        let key = reader.str(NAME_BYTES_MAX, "key").ok()?.to_owned();
        let version = reader.str(NAME_BYTES_MAX, "version").ok()?.to_owned();
        let wrapped_key = reader.bytes(WRAPPED_BYTES_MAX, "wrapped key").ok()?;
        let header = &wrapped[..wrapped.len() - reader.remaining()];
        let sealed = reader.bytes(SEALED_BYTES_MAX, "sealed").ok()?;
        reader.finish().ok()?;
        Some(Self { by: MadeBy { provider, key, version }, wrapped_key, header, sealed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cloud_wrapped_says_by_which_version_of_which_key() {
        for (provider, said) in [
            (ProviderKind::AwsKms, "aws-kms the:key version abc"),
            (ProviderKind::GcpKms, "gcp-kms the:key version abc"),
            (ProviderKind::AzureKeyVault, "azure-keyvault the:key version abc"),
        ] {
            let by = MadeBy { provider, key: "the:key".into(), version: "abc".into() };
            let mut out = Writer::default();
            write_header(&mut out, &by, b"wrapped");
            let header = out.len();
            out.bytes(b"sealed");
            let wrapped = out.finish();
            let parts = Parts::of(&wrapped).unwrap();
            assert_eq!((parts.wrapped_key, parts.sealed), (&b"wrapped"[..], &b"sealed"[..]));
            assert_eq!((parts.header.len(), &parts.by), (header, &by));
            assert_eq!(parts.by.version().to_string(), said);
            for cut in 0..wrapped.len() {
                assert!(Parts::of(&wrapped[..cut]).is_none(), "cut at {cut}");
            }
        }
    }
}
