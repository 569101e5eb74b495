//! The product under faults of networks, processes and disks. Writers at a hub and two edges and readers at the edges go on
//! all the while ([`llm_config_tests::workload`]) and record what they were told; when everything is whole again, the
//! record is checked against the hub's history ([`llm_config_tests::history::check`]).
//!
//! `LLM_CONFIG_TEST_SIZE` says how much (`tests/run` sets it), `LLM_CONFIG_TEST_SEED` where random choices begin: a
//! failure prints what repeats it. Threads meet as they like, so that a seed repeats what was done, not what came of it.
//!
//! | file | what is wrong | fast, ci, long |
//! |---|---|---|
//! | `network` | each fault of [`llm_config_tests::proxy`], under one hub, two processes of one, and two regions | 30 times; in the long run 150, for longer |
//! | `breaks` | resets within one snapshot, an edge and a hub killed meanwhile | once |
//! | `kills` | SIGKILL at a write call of hub or edge, under the same three, every other time cut off | 10, 24, 2,000 points |
//! | `disk` | EIO or ENOSPC from write calls and syncs, until a restart or for a while | 6, 8, 196 times |
//! | `power` | what a power cut leaves of an edge's files: torn blocks, in any order | 200, 400, 2,000 images |
//! | `flips` | a bit of the replica's files | 6, 16, 800 flips |
//! | `database` | PostgreSQL killed and started, frozen and thawed | 2, 4, 100 times |

mod breaks;
mod database;
mod disk;
mod flips;
mod kills;
mod network;
mod power;
mod world;
