//! Bringing a database's tables up to date: once, however many replicas start together, and again from where it stopped,
//! however it was stopped.

use std::collections::BTreeSet;

use anyhow::Context as _;
use sea_orm::{ConnectionTrait, DatabaseTransaction, Statement, TransactionTrait};
use sea_orm_migration::MigratorTrait;

use super::{Database, LeftOpen, MIGRATION_WAIT, Role, Server, mysql, pool, postgres};

/// Foreign migrations that are named: enough to see whose they are.
const NAMED: usize = 3;

impl Database {
    /// Brings its tables up to date, on one connection that holds a lock. On SQLite and `PostgreSQL` all steps are one
    /// transaction. `MariaDB` and MySQL know none for tables: there each step is one statement that may run twice.
    ///
    /// # Errors
    /// A migration failed, another replica holds the lock for too long, or the tables are another service's or a newer
    /// version's.
    pub async fn migrate<M: MigratorTrait>(&self) -> anyhow::Result<()> {
        let migrated = match self.server {
            Server::Sqlite => self.migrate_file::<M>().await,
            Server::Postgres(_) | Server::MySql(_) => self.migrate_server::<M>().await,
        };
        migrated.with_context(|| {
            let Self { source, .. } = self;
            format!("cannot bring the tables of {source} up to date ({})", source.flag)
        })
    }

    async fn migrate_file<M: MigratorTrait>(&self) -> anyhow::Result<()> {
        let tx = self.begin().await?;
        up::<M>(&tx).await?;
        Ok(tx.commit().await?)
    }

    async fn migrate_server<M: MigratorTrait>(&self) -> anyhow::Result<()> {
        let held = pool(&self.server, &self.source.config, Role::Migrates, LeftOpen::default());
        let tx = held.begin().await?;
        let late = || {
            format!(
                "another process has been bringing it up to date for {MIGRATION_WAIT:?}: wait for it, or end it"
            )
        };
        match self.server {
            Server::MySql(_) => {
                anyhow::ensure!(told(&tx, &mysql::lock()).await?, late());
                let migrated = up::<M>(&tx).await;
                told(&tx, &mysql::unlock()).await?;
                migrated?;
            }
            _ => {
                told(&tx, postgres::LOCK).await.with_context(late)?;
                up::<M>(&tx).await?;
            }
        }
        tx.commit().await?;
        held.close().await?;
        Ok(())
    }
}

async fn up<M: MigratorTrait>(tx: &DatabaseTransaction) -> anyhow::Result<()> {
    let known: BTreeSet<_> = M::migrations().iter().map(|step| step.name().to_owned()).collect();
    let applied = M::get_migration_models(tx).await?;
    let foreign: Vec<_> = applied
        .into_iter()
        .map(|step| step.version)
        .filter(|version| !known.contains(version))
        .collect();
    let some = foreign.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    anyhow::ensure!(
        foreign.is_empty(),
        "it has the tables of another service, or of a newer version of this one ({some}{}): give each service a database of \
         its own, or run the newer version",
        if foreign.len() > NAMED { ", …" } else { "" }
    );
    Ok(M::up(tx, None).await?)
}

/// Whether a question is answered by 1: a server may also say 0, or nothing at all.
async fn told(tx: &DatabaseTransaction, sql: &str) -> anyhow::Result<bool> {
    let sql = Statement::from_string(tx.get_database_backend(), sql);
    let row = tx.query_one_raw(sql).await?.context("it does not answer")?;
    Ok(row.try_get::<Option<i64>>("", "locked")? == Some(1))
}
