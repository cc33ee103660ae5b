//! Looking into a shop's database files, and editing them while it is closed.

use anyhow::Context as _;
use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection, DbBackend, Statement};
use testbed::Shop;

/// The services that publish.
pub(crate) const PUBLISHERS: [&str; 3] = ["order", "payment", "make"];

async fn connect(shop: &Shop, file: &str) -> anyhow::Result<DatabaseConnection> {
    let path = shop.data().join(format!("{file}.db"));
    let url = format!("sqlite:{}?mode=rw", path.display());
    Database::connect(url).await.with_context(|| format!("cannot open {}", path.display()))
}

/// Runs a statement on one of a closed shop's files; how many rows it changed.
pub(crate) async fn edit(shop: &Shop, file: &str, sql: &str) -> anyhow::Result<u64> {
    let database = connect(shop, file).await?;
    let changed = database.execute_unprepared(sql).await?.rows_affected();
    database.close().await?;
    Ok(changed)
}

/// How many events of all publishers are stored, and how many of them are yet to be published.
pub(crate) async fn events(shop: &Shop) -> anyhow::Result<(i64, i64)> {
    let mut sums = (0, 0);
    for file in PUBLISHERS {
        let database = connect(shop, file).await?;
        let sql =
            "SELECT count(*) AS stored, count(*) FILTER (WHERE published = 0) AS due FROM outbox";
        let counts = database
            .query_one_raw(Statement::from_string(DbBackend::Sqlite, sql))
            .await?
            .context("a count is a row")?;
        let (stored, due): (i64, i64) = (counts.try_get("", "stored")?, counts.try_get("", "due")?);
        sums = (sums.0 + stored, sums.1 + due);
        database.close().await?;
    }
    Ok(sums)
}

/// All that was ever said, as people say it (`OrderPlaced`), in the order in which it was.
pub(crate) async fn kinds(shop: &Shop) -> anyhow::Result<Vec<String>> {
    let mut said: Vec<(i64, String)> = Vec::new();
    for file in PUBLISHERS {
        let database = connect(shop, file).await?;
        let sql = Statement::from_string(DbBackend::Sqlite, "SELECT time, kind FROM outbox");
        for row in database.query_all_raw(sql).await? {
            let kind: String = row.try_get("", "kind")?;
            let name = kind.rsplit('.').next().unwrap_or_default().to_owned();
            said.push((row.try_get("", "time")?, name));
        }
        database.close().await?;
    }
    said.sort();
    Ok(said.into_iter().map(|(_time, name)| name).collect())
}
