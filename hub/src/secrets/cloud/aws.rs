//! AWS KMS: GenerateDataKey and Decrypt with an encryption context, DescribeKey, RotateKeyOnDemand.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, KeySpec, KeyState, KeyUsageType};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use llm_config_shared::seal::SealKey;
use zeroize::Zeroizing;

use super::error::{CloudError, CloudReason};
use super::service::{Failed, FreshKey, Service, away};
use super::settings::AwsSettings;
use super::wrapped::MadeBy;
use crate::secrets::provider::ProviderKind;

const KIND: ProviderKind = ProviderKind::AwsKms;
/// The encryption context: CloudTrail shows it, key policies may ask for it.
const PURPOSE: (&str, &str) = ("llm-config", "wrapped key 1");
const NAME: &str = "llm-config:name";

/// One key of AWS KMS.
pub(super) struct AwsKms {
    client: Client,
    key: String,
    previous_keys: Vec<String>,
}

impl AwsKms {
    pub(super) async fn new(settings: &AwsSettings) -> Result<Self, CloudError> {
        let config = sdk_config(settings).await?;
        if config.region().is_none() {
            let what = "no region is known: set secrets.aws_kms.region or AWS_REGION".to_owned();
            return Err(CloudError::SetUp { provider: KIND, what });
        }
        let mut own = aws_sdk_kms::config::Builder::from(&config);
        if let Some(endpoint) = &settings.endpoint {
            own = own.endpoint_url(endpoint);
        }
        let (key, previous_keys) = (settings.key.clone(), settings.previous_keys.clone());
        Ok(Self { client: Client::from_conf(own.build()), key, previous_keys })
    }
}

impl Service for AwsKms {
    const KIND: ProviderKind = KIND;

    fn is_trusted(&self, key: &str) -> bool {
        self.key == key || self.previous_keys.iter().any(|previous| previous == key)
    }

    async fn current(&self) -> Result<MadeBy, Failed> {
        let answer = self.client.describe_key().key_id(&self.key).send().await;
        let answer = answer.map_err(|error| self.failed(error, "kms:DescribeKey"))?;
        let key = answer.key_metadata().ok_or_else(|| odd("a key without a description"))?;
        match key.key_state() {
            Some(KeyState::Enabled) | None => {}
            Some(KeyState::Disabled) => return Err(away(CloudReason::KeyDisabled)),
            Some(_) => return Err(away(CloudReason::KeyNotUsable)),
        }
        let symmetric = key.key_spec().is_none_or(|spec| *spec == KeySpec::SymmetricDefault);
        let encrypts = key.key_usage().is_none_or(|usage| *usage == KeyUsageType::EncryptDecrypt);
        if !symmetric || !encrypts {
            let what = "is not symmetric: make one with the spec SYMMETRIC_DEFAULT for ENCRYPT_DECRYPT";
            return Err(Failed::Refused(CloudError::UnfitKey {
                provider: KIND,
                key: self.key.clone(),
                what,
            }));
        }
        made_by(key.arn(), key.current_key_material_id())
    }

    async fn fresh_data_key(&self, name: &str) -> Result<FreshKey, Failed> {
        let asked = self.client.generate_data_key().key_id(&self.key).key_spec(DataKeySpec::Aes256);
        let asked = asked.encryption_context(PURPOSE.0, PURPOSE.1).encryption_context(NAME, name);
        let mut answer = asked.send().await.map_err(|error| self.failed(error, "kms:GenerateDataKey"))?;
        let key = data_key(answer.plaintext.take())?;
        let wrapped = answer.ciphertext_blob.take().ok_or_else(|| odd("a data key without its wrapping"))?;
        let by = made_by(answer.key_id(), answer.key_material_id())?;
        Ok(FreshKey { by, wrapped: wrapped.into_inner(), key })
    }

    async fn open_data_key(&self, by: &MadeBy, wrapped: &[u8], name: &str) -> Result<SealKey, Failed> {
        // The key is named although AWS would find it: nothing else than that key may open this.
        let asked = self.client.decrypt().key_id(&by.key).ciphertext_blob(Blob::new(wrapped));
        let asked = asked.encryption_context(PURPOSE.0, PURPOSE.1).encryption_context(NAME, name);
        let mut answer = asked.send().await.map_err(|error| self.failed(error, "kms:Decrypt"))?;
        if answer.key_id() != Some(&by.key) {
            return Err(odd("what another key opened"));
        }
        data_key(answer.plaintext.take())
    }

    async fn rotate(&self) -> Result<(), Failed> {
        // An alias cannot be rotated, the key that it stands for can.
        let key = self.current().await?.key;
        let asked = self.client.rotate_key_on_demand().key_id(key);
        asked.send().await.map_err(|error| self.failed(error, "kms:RotateKeyOnDemand"))?;
        Ok(())
    }
}

impl AwsKms {
    /// `permission` is what the request needed.
    fn failed<E: ProvideErrorMetadata>(
        &self,
        error: SdkError<E, HttpResponse>,
        permission: &'static str,
    ) -> Failed {
        match &error {
            SdkError::TimeoutError(_) => away(CloudReason::Slow),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => away(CloudReason::Slow),
            SdkError::DispatchFailure(failure) if failure.is_io() => away(CloudReason::Unreachable),
            // Before anything is sent, credentials are asked for, and nothing else can go wrong.
            SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => {
                away(CloudReason::NoCredentials)
            }
            SdkError::ServiceError(service) => {
                let (code, raw) = (service.err().code().unwrap_or_default(), service.raw());
                let asked = raw.headers().get("retry-after").and_then(|after| after.trim().parse().ok());
                self.said_no(code, raw.status().as_u16(), asked.map(Duration::from_secs), permission)
            }
            SdkError::ResponseError(_) | _ => away(CloudReason::NoAnswer),
        }
    }

    /// The text beside the code is AWS's own and is not repeated.
    fn said_no(&self, code: &str, status: u16, asked: Option<Duration>, permission: &'static str) -> Failed {
        let away = |reason| Failed::Away { reason, asked };
        let unfit =
            |what| Failed::Refused(CloudError::UnfitKey { provider: KIND, key: self.key.clone(), what });
        match code {
            "AccessDeniedException" => away(CloudReason::Denied(permission)),
            "ThrottlingException" | "Throttling" | "RequestLimitExceeded" | "TooManyRequestsException" => {
                away(CloudReason::Throttled)
            }
            "DisabledException" => away(CloudReason::KeyDisabled),
            "KMSInvalidStateException" | "KeyUnavailableException" => away(CloudReason::KeyNotUsable),
            "NotFoundException" | "InvalidArnException" => {
                Failed::Refused(CloudError::NoKey { provider: KIND, key: self.key.clone() })
            }
            "InvalidCiphertextException" | "IncorrectKeyException" => {
                Failed::Refused(CloudError::CannotOpen { provider: KIND })
            }
            "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "InvalidClientTokenId"
            | "MissingAuthenticationTokenException"
            | "ExpiredTokenException" => away(CloudReason::BadCredentials),
            "InvalidKeyUsageException" => unfit("does not encrypt: make one for ENCRYPT_DECRYPT"),
            "UnsupportedOperationException" => unfit(
                "cannot be rotated here: make another key, name it in the settings, and this one in previous_keys",
            ),
            "LimitExceededException" => {
                unfit("was rotated as often as AWS allows: make another, and name this one in previous_keys")
            }
            "ConflictException" => Failed::Refused(CloudError::RotationUnderWay { provider: KIND }),
            // A proxy's page, or the end of an answer.
            _ if status < 400 => away(CloudReason::NoAnswer),
            _ if status == 429 => away(CloudReason::Throttled),
            _ => away(CloudReason::Failing(status)),
        }
    }
}

/// One attempt each: the gate decides when there is another.
async fn sdk_config(settings: &AwsSettings) -> Result<SdkConfig, CloudError> {
    let set_up = |what: String| CloudError::SetUp { provider: KIND, what };
    let mut trusted = TrustStore::default();
    if let Some(path) = &settings.ca_cert {
        let pem = std::fs::read(path).map_err(|error| set_up(format!("{}: {error}", path.display())))?;
        trusted = trusted.with_pem_certificate(pem);
    }
    let tls = TlsContext::builder().with_trust_store(trusted).build();
    let tls = tls.map_err(|error| set_up(error.to_string()))?;
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(tls)
        .build_https();
    let timeouts = TimeoutConfig::builder().operation_timeout(settings.timeout).build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts);
    if let Some(region) = settings.region.clone().or_else(|| region_of(&settings.key)) {
        loader = loader.region(Region::new(region));
    }
    if let Some(profile) = &settings.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(path) = &settings.credentials_file {
        let files = EnvConfigFiles::builder().include_default_config_file(true);
        loader = loader.profile_files(files.with_file(EnvConfigFileKind::Credentials, path).build());
    }
    Ok(loader.load().await)
}

/// `arn:aws:kms:REGION:…`
fn region_of(key: &str) -> Option<String> {
    let region = key.strip_prefix("arn:")?.split(':').nth(2)?;
    (!region.is_empty()).then(|| region.to_owned())
}

fn odd(what: &'static str) -> Failed {
    Failed::Refused(CloudError::Answer { provider: KIND, what })
}

/// Keys whose material is not AWS's own have no material id.
fn made_by(arn: Option<&str>, material: Option<&str>) -> Result<MadeBy, Failed> {
    let key = arn.ok_or_else(|| odd("a key without its ARN"))?.to_owned();
    Ok(MadeBy { provider: KIND, key, version: material.unwrap_or_default().to_owned() })
}

fn data_key(plain: Option<Blob>) -> Result<SealKey, Failed> {
    let plain = Zeroizing::new(plain.map(Blob::into_inner).unwrap_or_default());
    let key: Result<Zeroizing<[u8; 32]>, _> = plain.as_slice().try_into().map(Zeroizing::new);
    Ok(SealKey::new(*key.map_err(|_| odd("a data key of another length"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_of_an_arn_is_found() {
        assert_eq!(region_of("arn:aws:kms:eu-west-1:1:key/x").as_deref(), Some("eu-west-1"));
        assert_eq!(region_of("arn:aws-cn:kms:cn-north-1:1:alias/x").as_deref(), Some("cn-north-1"));
        assert_eq!(
            (region_of("alias/x"), region_of("arn:aws:kms"), region_of("arn:aws:kms::1")),
            (None, None, None)
        );
    }
}
