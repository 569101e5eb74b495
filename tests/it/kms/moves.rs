//! A hub's keys move from one cloud to another, killed at every step.

use llm_config_tests::Size;
use llm_config_tests::kms::aws::AwsKms;
use llm_config_tests::kms::azure::AzureKeyVault;
use llm_config_tests::kms::gcp::GcpKms;
use llm_config_tests::scratch::Scratch;

use crate::vault::rotation::{all_open, hub_with_secrets, keys, rewrap_killed_at_every_step, status};

/// The table of each stays until all is moved; what one cloud wrapped, it opens for the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_hub_moves_from_cloud_to_cloud_and_back_and_survives_a_kill_at_every_step() {
    let scratch = Scratch::new("clouds-move");
    let (aws, google, azure) = (AwsKms::start().await, GcpKms::start().await, AzureKeyVault::start().await);
    let (mut hub, config) = hub_with_secrets(&scratch, "").await;
    let aws_table = aws.tables(&scratch);
    let aws_table = aws_table.split_once("[secrets.aws_kms]").expect("a table").1;
    hub.configure(&format!(
        "[secrets]\nprovider = \"local\"\n[secrets.aws_kms]{aws_table}{}{}",
        google.table(&scratch),
        azure.table(&scratch)
    ));
    let killed: &[&str] = Size::of_run().pick(
        &["gcp-kms"],
        &["gcp-kms", "azure-keyvault"],
        &["aws-kms", "gcp-kms", "azure-keyvault"],
    );
    let mut wraps = "local";
    for next in ["aws-kms", "gcp-kms", "azure-keyvault", "local"] {
        hub.stop();
        let text = std::fs::read_to_string(&config).unwrap();
        let (from, to) = (format!("provider = \"{wraps}\""), format!("provider = \"{next}\""));
        std::fs::write(&config, text.replace(&from, &to)).unwrap();
        if killed.contains(&next) {
            let all_by_next = rewrap_killed_at_every_step(&scratch, &hub, &config).await;
            assert!(all_by_next.starts_with(&format!("{next} ")), "{all_by_next}");
        }
        // The hub itself, whose database was only copied until now, moves while it runs.
        hub.start().await;
        keys(&config, "rewrap").await.done();
        all_open(&hub).await;
        hub.kill();
        hub.start().await;
        all_open(&hub).await;
        wraps = next;
    }
    assert!(status(&config).await.keys().all(|key| key.starts_with("local ")));
}
