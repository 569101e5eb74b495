//! Every bound in one place, with the relations between them asserted at compile time.

/// Most writes of another region's history in one message, and in one commit.
pub const REGION_PAGE_WRITES_MAX: usize = 100;
/// Keys of secrets in a message from one region to another.
pub const REGION_KEYS_MAX: usize = 1_000;
/// A message of a history ends before it has more bytes of values than this, if it has any.
pub const REGION_PAGE_BYTES_MAX: usize = 2 << 20;

/// Longest tenant, environment or edge name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest namespace, in bytes, slashes included.
pub const NAMESPACE_BYTES_MAX: usize = 256;
/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// Longest value, in bytes of its canonical JSON.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of arrays and objects in a value.
pub const VALUE_DEPTH_MAX: usize = 32;
/// Longest description of an entry or message of a change, in bytes.
pub const TEXT_BYTES_MAX: usize = 4 << 10;
/// Most tags of an entry.
pub const TAGS_MAX: usize = 32;
/// Longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 128;

/// Most operations of one bulk request.
pub const BULK_OPERATIONS_MAX: usize = 500;
/// Most writes in one transaction of the hub's writer.
pub const COMMIT_WRITES_MAX: usize = 500;
/// Most deletions that one transaction purges.
pub const PURGE_ROWS_MAX: usize = 500;
/// How long a deletion is kept before it may be purged, by default, in days.
pub const DELETED_DAYS: u64 = 30;
/// Most writes of one upload message, and their total size.
pub const UPLOAD_WRITES_MAX: usize = 100;
/// Most bytes of values in one upload message. One value of the largest size still fits.
pub const UPLOAD_BYTES_MAX: usize = 2 << 20;
/// Most writes that an edge queues while it is cut off.
pub const OUTBOX_WRITES_MAX: usize = 100_000;

/// How long an edge keeps its own writes after the hub has admitted them, for a hub that comes back from a backup of before.
pub const GRACE_MS: u64 = 7 * 86_400_000;
/// Most writes that it keeps so, the newest.
pub const GRACE_WRITES_MAX: usize = 10_000;
/// Most bytes of them, about.
pub const GRACE_BYTES_MAX: usize = 16 << 20;
/// Most writes that a hub takes of one edge after one loss.
pub const HANDED_IN_WRITES_MAX: u64 = 100_000;
/// Most bytes of them, about.
pub const HANDED_IN_BYTES_MAX: u64 = 128 << 20;

/// Most changes that an edge applies in one durable batch, so that one batch stalls reads only briefly.
pub const BATCH_CHANGES_MAX: usize = 200;
/// Most rows of one segment.
pub const SEGMENT_ROWS_MAX: usize = 2_000;
/// Most plain bytes of one segment before it is cut, except that one row always fits.
pub const SEGMENT_PLAIN_BYTES_CUT: usize = 1 << 20;
/// Most plain bytes of one of the segments that a large part is cut into, with the same exception: so much is sent again, at
/// most, when a link breaks.
pub const CHUNK_PLAIN_BYTES_CUT: usize = 256 << 10;
/// Most plain bytes of a section that an edge will inflate.
pub const SECTION_PLAIN_BYTES_MAX: usize = 32 << 20;
/// Highest ratio of plain to wire bytes that an edge will inflate.
pub const INFLATE_RATIO_MAX: usize = 1_100;
/// Breaks of one transfer of which the edge keeps account: of more, the oldest are joined.
pub const SPANS_MAX: usize = 4;
/// A delta goes as a snapshot when it would have more than so many hundredths of the snapshot's plain bytes. A snapshot names no
/// deletion, carries no patch that needs a base, is made once for everybody and shrinks better: at six tenths both take
/// about as long to send, and the snapshot is mostly there already.
pub const DELTA_PERCENT_MAX: usize = 60;
/// Largest message on the sync stream, in bytes.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Below this size gzip costs more than it saves.
pub const GZIP_BYTES_MIN: usize = 1 << 10;

/// Sums of a feed that are compared to find where it differs: one for each first byte of a key's hash.
pub const REPAIR_BUCKETS: usize = 256;
/// Most rows that are listed to find which of them differ. A bucket of a feed of a million rows still fits.
pub const REPAIR_ROWS_MAX: usize = 6_000;
/// Most rows that are put right one by one; a feed in which more differ is fetched whole.
pub const REPAIR_KEYS_MAX: usize = 256;
/// Repairs of one feed within an hour before it is fetched whole.
pub const REPAIRS_PER_HOUR_MAX: usize = 3;

/// How long secrets stay open at an edge without contact with its hub, unless the hub says otherwise.
pub const OFFLINE_LIMIT_MS: u64 = 72 * 3_600_000;
/// The longest and the shortest that may be set for a namespace.
pub const OFFLINE_LIMIT_MS_MAX: u64 = 30 * 86_400_000;
/// Shorter than this a limit would only find out how quick the network is.
pub const OFFLINE_LIMIT_MS_MIN: u64 = 1_000;
/// How long an edge takes a file that was made for it, unless somebody said otherwise.
pub const CARRIED_MS: u64 = 7 * 86_400_000;
/// Values and names of writes that one file carries to the hub; more go with the next.
pub const CARRIED_BYTES_MAX: usize = 2 << 20;
/// Most namespaces of a tenant with a limit of their own.
pub const OFFLINE_LIMITS_MAX: usize = 256;
/// Starts of the machine without contact after which secrets lock: how long it was off, nobody can know.
pub const OFFLINE_REBOOTS_MAX: u32 = 1;
/// After so long new secrets are sealed with new keys.
pub const KEY_EPOCH_MS_MAX: u64 = 90 * 86_400_000;
/// A connected edge is told at least this often that the hub is there, in milliseconds.
pub const CONTACT_EVERY_MS_MAX: u64 = 60_000;

/// Below this size a value always travels whole.
pub const PATCH_BYTES_MIN: usize = 64;

/// Most shards in a vector.
pub const SHARDS_MAX: usize = 8;
/// Most feeds of an edge.
pub const FEEDS_MAX: usize = 256;
/// Longest name of something that uses values, in bytes.
pub const CONSUMER_BYTES_MAX: usize = 200;
/// Most uses of values that are kept of one edge.
pub const USES_MAX: usize = 2_000;
/// Most namespaces of a tenant that have a policy of their own.
pub const POLICIES_MAX: usize = 256;
/// Longest chain of environments.
pub const ENVIRONMENT_CHAIN_MAX: usize = 16;
/// Counters an edge may use before it writes down the next ceiling.
pub const COUNTER_BLOCK: u64 = 1_024;

/// How far a clock may be ahead before a write is held, by default.
pub const CLOCK_EPSILON_MS: u64 = 500;
/// The largest bound that may be configured for it.
pub const CLOCK_EPSILON_MS_MAX: u64 = 60_000;

/// Default time between heartbeats on a connected stream.
pub const HEARTBEAT_MS: u64 = 30_000;
/// A stream on which nothing moved for so long is given up.
pub const PROGRESS_MS_MAX: u64 = 3 * HEARTBEAT_MS;
/// Bounds of the full jitter between attempts to reconnect.
pub const RECONNECT_MS_MIN: u64 = 1_000;
/// The longest pause between two attempts.
pub const RECONNECT_MS_MAX: u64 = 120_000;

const _: () = assert!(VALUE_BYTES_MAX < UPLOAD_BYTES_MAX, "one value of the largest size fits an upload");
const _: () = assert!(UPLOAD_BYTES_MAX < FRAME_BYTES_MAX, "an upload fits a frame");
const _: () = assert!(
    SEGMENT_PLAIN_BYTES_CUT + VALUE_BYTES_MAX + (64 << 10) < FRAME_BYTES_MAX,
    "a segment cut after its largest row fits a frame even when nothing shrinks"
);
const _: () = assert!(CHUNK_PLAIN_BYTES_CUT <= SEGMENT_PLAIN_BYTES_CUT);
const _: () = assert!(SEGMENT_PLAIN_BYTES_CUT + 2 * VALUE_BYTES_MAX < SECTION_PLAIN_BYTES_MAX);
const _: () = assert!(UPLOAD_WRITES_MAX <= COMMIT_WRITES_MAX, "an upload is admitted in one transaction");
const _: () = assert!(GRACE_WRITES_MAX as u64 <= HANDED_IN_WRITES_MAX, "what an edge keeps, a hub takes");
const _: () = assert!(GRACE_BYTES_MAX as u64 <= HANDED_IN_BYTES_MAX);
const _: () =
    assert!(16 * (REPAIR_BUCKETS + REPAIR_ROWS_MAX) < FRAME_BYTES_MAX, "what is compared fits a frame");
const _: () = assert!(REPAIR_KEYS_MAX <= SEGMENT_ROWS_MAX, "what is put right fits a segment");
const _: () = assert!(CLOCK_EPSILON_MS <= CLOCK_EPSILON_MS_MAX);
const _: () = assert!(OFFLINE_LIMIT_MS_MIN < OFFLINE_LIMIT_MS && OFFLINE_LIMIT_MS < OFFLINE_LIMIT_MS_MAX);
const _: () = assert!(RECONNECT_MS_MIN < RECONNECT_MS_MAX);
