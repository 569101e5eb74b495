//! What at each edge uses which version of an entry.

use llm_config_shared::in_use::Use;
use llm_config_shared::name::{EntryKey, Key};
use llm_config_shared::stamp::ActorId;

use crate::journal::Database;
use crate::journal::dialect::{Answer, Cells, Column, Dialect, Sql, Transact};
use crate::journal::rows::{self, name, uuid};
use crate::registry::{Consumer, Said, Uses};

const FORGET: Sql = Sql::same("DELETE FROM in_use WHERE edge = $1 AND lasting = 0");
const FORGET_ONE: Sql = Sql::same("DELETE FROM in_use WHERE edge = $1 AND consumer = $2");
const HEARD: Sql = Sql::same(
    "UPDATE edge SET last_seen_at = $2 WHERE id = $1 AND (last_seen_at IS NULL OR last_seen_at <= $2)",
);
/// An entry of a scope that does not exist was never written: nobody can use it.
const PUT: Sql = Sql {
    sqlite: "INSERT INTO in_use (edge, consumer, lasting, scope, key, version, said_at)
             SELECT $1, $2, $3, s.id, $7, $8, $9 FROM scope s
             WHERE s.tenant = $4 AND s.environment = $5 AND s.namespace = $6
             ON CONFLICT (edge, consumer, scope, key) DO UPDATE SET
                 lasting = excluded.lasting, version = excluded.version, said_at = excluded.said_at",
    postgres: "INSERT INTO in_use (edge, consumer, lasting, scope, key, version, said_at)
               SELECT DISTINCT ON (e, c, s.id, k) e, c, l, s.id, k, v, w
               FROM unnest($1::bytea[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[],
                           $8::bigint[], $9::bigint[]) AS a (e, c, l, t, n, p, k, v, w)
               JOIN scope s ON s.tenant = t AND s.environment = n AND s.namespace = p
               ON CONFLICT (edge, consumer, scope, key) DO UPDATE SET
                   lasting = excluded.lasting, version = excluded.version, said_at = excluded.said_at",
};
const OF: Sql = Sql {
    sqlite: "SELECT s.tenant, s.environment, s.namespace, u.key, u.edge, u.consumer, u.version
             FROM scope s JOIN in_use u ON u.scope = s.id
             WHERE s.tenant = $1 AND s.environment = $2 AND s.namespace = $3 AND u.key = $4",
    postgres: "SELECT s.tenant, s.environment, s.namespace, u.key, u.edge, u.consumer, u.version
               FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS a (t, v, n, k)
               JOIN scope s ON s.tenant = t AND s.environment = v AND s.namespace = n
               JOIN in_use u ON u.scope = s.id AND u.key = k",
};

impl<D: Dialect> Uses for Database<D> {
    async fn report_uses(
        &self,
        edge: ActorId,
        complete: bool,
        consumers: &[Consumer],
        said: Said,
    ) -> Answer<()> {
        let (id, said_at) = (edge.0.as_bytes().as_slice(), said.at());
        let mut tx = self.dialect().begin_write().await?;
        let is_news = tx.execute(HEARD, vec![id.into(), said_at.0.into()]).await? > 0;
        if matches!(said, Said::Carried(_)) && !is_news {
            return tx.commit().await;
        }
        if complete {
            tx.execute(FORGET, vec![id.into()]).await?;
        }
        for consumer in consumers {
            tx.execute(FORGET_ONE, vec![id.into(), (&*consumer.name).into()]).await?;
        }
        let rows: Vec<(&Consumer, &EntryKey, u64)> = consumers
            .iter()
            .flat_map(|consumer| consumer.uses.iter().map(move |(at, version)| (consumer, at, *version)))
            .collect();
        let columns = vec![
            Column::blobs(rows.iter().map(|_| id)),
            Column::texts(rows.iter().map(|(consumer, ..)| &*consumer.name)),
            Column::ints(rows.iter().map(|(consumer, ..)| consumer.lasting.into())),
            Column::texts(rows.iter().map(|(_, at, _)| at.scope.tenant.as_str())),
            Column::texts(rows.iter().map(|(_, at, _)| at.scope.environment.as_str())),
            Column::texts(rows.iter().map(|(_, at, _)| at.scope.namespace.as_str())),
            Column::texts(rows.iter().map(|(_, at, _)| at.key.as_str())),
            Column::ints(rows.iter().map(|(.., version)| *version)),
            Column::ints(rows.iter().map(|_| said_at.0)),
        ];
        tx.execute_each(PUT, columns).await?;
        tx.commit().await
    }

    async fn uses_of(&self, entries: &[EntryKey]) -> Answer<Vec<Use>> {
        let columns = vec![
            Column::texts(entries.iter().map(|at| at.scope.tenant.as_str())),
            Column::texts(entries.iter().map(|at| at.scope.environment.as_str())),
            Column::texts(entries.iter().map(|at| at.scope.namespace.as_str())),
            Column::texts(entries.iter().map(|at| at.key.as_str())),
        ];
        let mut tx = self.dialect().begin_read().await?;
        let found = tx.fetch_each(OF, columns).await?;
        tx.commit().await?;
        found.iter().map(in_use).collect()
    }
}

fn in_use(row: &impl Cells) -> Answer<Use> {
    Ok(Use {
        at: EntryKey { scope: rows::scope(row, 0)?, key: name(Key::parse(row.text(3)?))? },
        edge: ActorId(uuid(row, 4)?),
        consumer: row.text(5)?.into(),
        version: row.int(6)?,
    })
}
