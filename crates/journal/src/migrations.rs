//! The journal's own tables, which every service has beside its own.

use sea_orm::{
    DbBackend, DbErr,
    sea_query::{ColumnDef, ConditionalStatement as _, Expr, Index, TableCreateStatement},
};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait::async_trait};

use crate::{dead_letters, marks, outbox::row};

/// For a service to put before its own.
#[must_use]
pub fn migrations() -> Vec<Box<dyn MigrationTrait>> {
    [Step::Outbox, Step::Unpublished, Step::DeadLetters, Step::Streams]
        .into_iter()
        .map(|step| -> Box<dyn MigrationTrait> { Box::new(step) })
        .collect()
}

/// Creates a table whose rows lie in the order of their primary key, as a `UUIDv7` is that of their making: new rows come to lie
/// together, and a row is found with one search and not two. MySQL keeps every table so, SQLite when it is asked to.
///
/// # Errors
/// The database cannot be used.
pub async fn create_clustered(
    manager: &SchemaManager<'_>,
    mut table: TableCreateStatement,
) -> Result<(), DbErr> {
    if manager.get_database_backend() == DbBackend::Sqlite {
        table.extra("WITHOUT ROWID");
    }
    manager.create_table(table).await
}

/// Each is one statement, which may run twice: not every database can undo half of a change to its tables.
enum Step {
    Outbox,
    Unpublished,
    DeadLetters,
    Streams,
}

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        match self {
            Self::Outbox => "journal_0001_outbox",
            Self::Unpublished => "journal_0002_unpublished",
            Self::DeadLetters => "journal_0003_dead_letters",
            Self::Streams => "journal_0004_streams",
        }
    }
}

#[async_trait]
#[allow(elided_lifetimes_in_paths, reason = "async_trait cannot match the trait otherwise")]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        match self {
            Self::Outbox => create_clustered(manager, outbox()).await,
            Self::Unpublished => {
                // partial, so that a row enters it once and leaves it once
                let index = Index::create()
                    .if_not_exists()
                    .name("outbox_unpublished")
                    .table(row::Entity)
                    .col(row::Column::Id)
                    .and_where(Expr::cust(row::UNPUBLISHED))
                    .take();
                manager.create_index(index).await
            }
            Self::DeadLetters => create_clustered(manager, dead_letters()).await,
            Self::Streams => create_clustered(manager, streams()).await,
        }
    }
}

fn outbox() -> TableCreateStatement {
    use row::Column;
    let column = |column| ColumnDef::new(column).not_null().take();
    TableCreateStatement::new()
        .if_not_exists()
        .table(row::Entity)
        .col(column(Column::Id).uuid().primary_key())
        .col(column(Column::Published).integer())
        .col(column(Column::Edition).integer())
        .col(ColumnDef::new(Column::StreamSequence).big_integer().null())
        .col(column(Column::Kind).string_len(200))
        .col(column(Column::Subject).uuid())
        .col(column(Column::Time).big_integer())
        .col(column(Column::CorrelationId).uuid())
        .col(column(Column::CausationId).uuid())
        .col(ColumnDef::new(Column::Traceparent).string_len(55).null())
        .col(ColumnDef::new(Column::Tracestate).string_len(512).null())
        .col(column(Column::Payload).blob())
        .take()
}

fn streams() -> TableCreateStatement {
    use marks::stream::{Column, Entity};
    let column = |column| ColumnDef::new(column).not_null().take();
    TableCreateStatement::new()
        .if_not_exists()
        .table(Entity)
        .col(column(Column::Name).string_len(200).primary_key())
        .col(column(Column::Created).big_integer())
        .col(column(Column::Sequence).big_integer())
        .col(column(Column::MessageId).string_len(100))
        .take()
}

fn dead_letters() -> TableCreateStatement {
    use dead_letters::Column;
    let column = |column| ColumnDef::new(column).not_null().take();
    TableCreateStatement::new()
        .if_not_exists()
        .table(dead_letters::Entity)
        .col(column(Column::Id).uuid().primary_key())
        .col(column(Column::Kind).string_len(200))
        .col(column(Column::Source).string_len(200))
        .col(column(Column::Subject).uuid())
        .col(column(Column::Time).big_integer())
        .col(column(Column::CorrelationId).uuid())
        .col(column(Column::CausationId).uuid())
        .col(ColumnDef::new(Column::Traceparent).string_len(55).null())
        .col(ColumnDef::new(Column::Tracestate).string_len(512).null())
        .col(column(Column::Payload).blob())
        .col(column(Column::Error).text())
        .col(column(Column::Attempts).integer())
        .col(column(Column::DeadTime).big_integer())
        .take()
}
