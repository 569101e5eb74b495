//! Keys of subtrees that stay shut without a second key: the limit key, which a hub gives an edge at each contact.
//!
//! A grant lies in the replica for as long as it counts, and the edge's private key lies on the same disk. Here the grant is
//! sealed in HPKE's mode with a pre-shared key (RFC 9180, 5.1.2), and that key need not lie there.

use hpke::rand_core::CryptoRng;

use super::sealed::{self, Bound};
use super::{
    Bytes, CannotOpen, Environment, GRANT_INFO, KeyGrant, SealKey, Subtree, SubtreeKey, Tenant, Zeroizing,
    expand, grant_context,
};

const PSK_ID: &[u8] = b"llm-config limit key 1";
const KEY_INFO: &[u8] = b"llm-config limit key for an edge 1";

/// Limit keys, sealed to one edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedLimitKeys {
    pub encapsulated: Bytes,
    pub ciphertext: Bytes,
}

/// One edge's limit key for a subtree, from the one that a hub keeps for all of them.
pub fn limit_key(of_hub: &SealKey, tenant: &Tenant, edge: &str, subtree: &Subtree) -> SealKey {
    let of_tenant = expand(of_hub, b"llm-config limit tenant", tenant.as_str().as_bytes());
    let of_edge = expand(&of_tenant, b"llm-config limit edge", edge.as_bytes());
    expand(&of_edge, b"llm-config limit subtree", subtree.as_str().as_bytes())
}

fn edge_context(tenant: &Tenant, edge: &str) -> Vec<u8> {
    let length = (tenant.as_str().len() as u32).to_be_bytes();
    [&length[..], tenant.as_str().as_bytes(), edge.as_bytes()].concat()
}

/// Hands limit keys, in an order that both know, to the edge that holds the private half of `public`.
///
/// # Errors
/// When `public` is no point of the curve that HPKE accepts.
pub fn seal_limit_keys(
    keys: &[SealKey],
    tenant: &Tenant,
    edge: &str,
    public: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<SealedLimitKeys, CannotOpen> {
    let mut plain = Zeroizing::new(Vec::with_capacity(32 * keys.len()));
    keys.iter().for_each(|key| plain.extend_from_slice(key.expose()));
    let bound = Bound { info: KEY_INFO, context: &edge_context(tenant, edge), shared: None };
    let (encapsulated, ciphertext) = sealed::seal(&plain, public, bound, rng)?;
    Ok(SealedLimitKeys { encapsulated, ciphertext })
}

/// The inverse of [`seal_limit_keys`], at the edge.
///
/// # Errors
/// When it was made for another edge, or was changed.
pub fn open_limit_keys(
    sealed: &SealedLimitKeys,
    tenant: &Tenant,
    edge: &str,
    private: &SealKey,
) -> Result<Vec<SealKey>, CannotOpen> {
    let bound = Bound { info: KEY_INFO, context: &edge_context(tenant, edge), shared: None };
    let plain = sealed::open((&sealed.encapsulated, &sealed.ciphertext), private, bound)?;
    plain.chunks(32).map(SealKey::from_slice).collect()
}

/// Hands a subtree's key to the edge that holds the private half of `public`, shut without the edge's limit key.
///
/// # Errors
/// When `public` is no point of the curve that HPKE accepts.
#[expect(clippy::too_many_arguments, reason = "each is a part of what the grant is bound to")]
pub fn seal_limited_grant(
    key: &SubtreeKey,
    key_epoch: u64,
    tenant: &Tenant,
    edge: &str,
    environment: &Environment,
    public: &[u8],
    limit_key: &SealKey,
    rng: &mut impl CryptoRng,
) -> Result<KeyGrant, CannotOpen> {
    let context = grant_context(tenant, edge, environment, &key.subtree, key_epoch);
    let bound = Bound { info: GRANT_INFO, context: &context, shared: Some((limit_key, PSK_ID)) };
    let (encapsulated, ciphertext) = sealed::seal(key.key.expose(), public, bound, rng)?;
    Ok(KeyGrant {
        environment: environment.clone(),
        subtree: key.subtree.clone(),
        key_epoch,
        encapsulated,
        ciphertext,
    })
}

/// The inverse of [`seal_limited_grant`], at the edge.
///
/// # Errors
/// When the grant was made for another edge, place, epoch or limit key, or was changed.
pub fn open_limited_grant(
    grant: &KeyGrant,
    tenant: &Tenant,
    edge: &str,
    private: &SealKey,
    limit_key: &SealKey,
) -> Result<SubtreeKey, CannotOpen> {
    let context = grant_context(tenant, edge, &grant.environment, &grant.subtree, grant.key_epoch);
    let bound = Bound { info: GRANT_INFO, context: &context, shared: Some((limit_key, PSK_ID)) };
    let key = sealed::open((&grant.encapsulated, &grant.ciphertext), private, bound)?;
    Ok(SubtreeKey::of(grant.subtree.clone(), SealKey::from_slice(&key)?))
}

#[cfg(test)]
mod tests {
    use super::super::tests::Counting;
    use super::super::{open_grant, sealing_keypair};
    use super::*;

    #[test]
    fn a_grant_stays_shut_without_the_limit_key_whatever_else_lies_beside_it() {
        let (private, public) = sealing_keypair(&[9; 32]);
        let tenant = Tenant::parse("t").unwrap();
        let of_hub = SealKey::new([4; 32]);
        let key = limit_key(&of_hub, &tenant, "e", &Subtree::ALL);
        assert_ne!(key, limit_key(&of_hub, &tenant, "f", &Subtree::ALL));
        assert_ne!(key, limit_key(&of_hub, &tenant, "e", &Subtree::parse("a").unwrap()));
        let root = SubtreeKey::root(SealKey::new([5; 32]));
        let base = Environment::base();
        let grant =
            seal_limited_grant(&root, 3, &tenant, "e", &base, &public, &key, &mut Counting(0)).unwrap();
        assert_eq!(open_limited_grant(&grant, &tenant, "e", &private, &key).unwrap(), root);
        assert_eq!(open_grant(&grant, &tenant, "e", &private), Err(CannotOpen));
        let other = SealKey::new([6; 32]);
        assert_eq!(open_limited_grant(&grant, &tenant, "e", &private, &other), Err(CannotOpen));
        let moved = KeyGrant { subtree: Subtree::parse("a").unwrap(), ..grant };
        assert_eq!(open_limited_grant(&moved, &tenant, "e", &private, &key), Err(CannotOpen));

        let both = [key, other];
        let sealed = seal_limit_keys(&both, &tenant, "e", &public, &mut Counting(1)).unwrap();
        assert_eq!(open_limit_keys(&sealed, &tenant, "e", &private).unwrap(), both);
        assert_eq!(open_limit_keys(&sealed, &tenant, "f", &private), Err(CannotOpen));
    }
}
