//! The product under faults of networks, processes and disks, with a record of all that was asked and answered, which is
//! checked when everything is whole again: see [`llm_config_tests::history::check`].

mod database;
mod disk;
mod flips;
mod kills;
mod network;
mod world;
