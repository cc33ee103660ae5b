//! The journal's own tables, which every service has beside its own.

use sea_orm::{
    DbBackend, DbErr,
    sea_query::{
        Alias, ColumnDef, ConditionalStatement as _, Expr, Index, IndexCreateStatement, IndexType,
        IntoIden as _, IntoIndexColumn, Table, TableCreateStatement,
    },
};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait::async_trait};

use crate::{database, dead_letters, failures, marks, outbox::row};

/// For a service to put before its own.
#[must_use]
pub fn migrations() -> Vec<Box<dyn MigrationTrait>> {
    let steps = [
        Step::Outbox,
        Step::Unpublished,
        Step::DeadLetters,
        Step::Streams,
        Step::BySubject,
        Step::Failures,
        Step::Edition,
        Step::StreamSequence,
    ];
    steps.into_iter().map(|step| -> Box<dyn MigrationTrait> { Box::new(step) }).collect()
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
    match manager.get_database_backend() {
        DbBackend::Sqlite => {
            table.extra("WITHOUT ROWID");
        }
        // by default Kim would be kim, and Kím too
        DbBackend::MySql => {
            table.engine("InnoDB").character_set("utf8mb4").collate("utf8mb4_bin");
        }
        _ => {}
    }
    manager.create_table(table).await
}

/// Creates an index, unless it is there: MySQL cannot be asked to look first.
///
/// # Errors
/// The database cannot be used.
pub async fn create_index(
    manager: &SchemaManager<'_>,
    index: IndexCreateStatement,
) -> Result<(), DbErr> {
    match manager.create_index(index).await {
        Err(error) if database::is_duplicate_index(&error) => Ok(()),
        created => created,
    }
}

/// Creates an index of the rows of which `condition` is true, so that a row enters it once and leaves it once. Without partial
/// indexes, as in MySQL, it is one of all rows: by `column`, which the condition is about, first.
///
/// # Errors
/// The database cannot be used.
pub async fn create_partial_index(
    manager: &SchemaManager<'_>,
    mut index: IndexCreateStatement,
    column: impl IntoIndexColumn,
    by: impl IntoIndexColumn,
    condition: &'static str,
) -> Result<(), DbErr> {
    match manager.get_database_backend() {
        DbBackend::MySql => index.col(column).col(by),
        _ => index.col(by).and_where(Expr::cust(condition)),
    };
    create_index(manager, index).await
}

/// Makes a column one of bytes, more than the 64 KiB that MySQL gives it by default.
pub fn bytes<'a>(manager: &SchemaManager<'_>, column: &'a mut ColumnDef) -> &'a mut ColumnDef {
    match manager.get_database_backend() {
        DbBackend::MySql => column.custom(Alias::new("longblob")),
        _ => column.blob(),
    }
}

/// Each is one statement, which may run twice: not every database can undo half of a change to its tables.
enum Step {
    Outbox,
    Unpublished,
    DeadLetters,
    Streams,
    BySubject,
    Failures,
    /// Of an outbox that was made before it had the column.
    Edition,
    /// As well.
    StreamSequence,
}

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        match self {
            Self::Outbox => "journal_0001_outbox",
            Self::Unpublished => "journal_0002_unpublished",
            Self::DeadLetters => "journal_0003_dead_letters",
            Self::Streams => "journal_0004_streams",
            Self::BySubject => "journal_0005_outbox_by_subject",
            Self::Failures => "journal_0006_event_failures",
            Self::Edition => "journal_0007_outbox_edition",
            Self::StreamSequence => "journal_0008_outbox_stream_sequence",
        }
    }
}

#[async_trait]
#[allow(elided_lifetimes_in_paths, reason = "async_trait cannot match the trait otherwise")]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        match self {
            Self::Outbox => create_clustered(manager, outbox(manager)).await,
            Self::Unpublished => {
                let (published, id) = (row::Column::Published, row::Column::Id);
                let index = Index::create()
                    .if_not_exists()
                    .name("outbox_unpublished")
                    .table(row::Entity)
                    .take();
                create_partial_index(manager, index, published, id, row::UNPUBLISHED).await
            }
            Self::DeadLetters => create_clustered(manager, dead_letters(manager)).await,
            Self::Streams => create_clustered(manager, streams()).await,
            Self::Failures => create_clustered(manager, failures()).await,
            Self::Edition => add_to_outbox(manager, edition()).await,
            Self::StreamSequence => add_to_outbox(manager, stream_sequence()).await,
            Self::BySubject => {
                // all that happened to one thing: a person asks for it, and a replay
                let mut index = Index::create()
                    .if_not_exists()
                    .name("outbox_by_subject")
                    .table(row::Entity)
                    .col(row::Column::Subject)
                    .take();
                if manager.get_database_backend() == DbBackend::Postgres {
                    // subjects are UUIDv7s as a rule, and what is young has most of the events: the rows of one lie near each
                    // other, and an entry for each, twice, as PostgreSQL makes one when an event is marked, too, is not needed
                    index.index_type(IndexType::Custom("brin".into_iden()));
                } else {
                    index.col(row::Column::Id);
                }
                create_index(manager, index).await
            }
        }
    }
}

fn outbox(manager: &SchemaManager<'_>) -> TableCreateStatement {
    use row::Column;
    let column = |column| ColumnDef::new(column).not_null().take();
    TableCreateStatement::new()
        .if_not_exists()
        .table(row::Entity)
        .col(column(Column::Id).uuid().primary_key())
        .col(column(Column::Published).integer())
        .col(edition())
        .col(stream_sequence())
        .col(column(Column::Kind).string_len(200))
        .col(column(Column::Subject).uuid())
        .col(column(Column::Time).big_integer())
        .col(column(Column::CorrelationId).uuid())
        .col(column(Column::CausationId).uuid())
        .col(ColumnDef::new(Column::Traceparent).string_len(55).null())
        .col(ColumnDef::new(Column::Tracestate).string_len(512).null())
        .col(bytes(manager, &mut column(Column::Payload)))
        .take()
}

fn edition() -> ColumnDef {
    ColumnDef::new(row::Column::Edition).integer().not_null().default(0).take()
}

fn stream_sequence() -> ColumnDef {
    ColumnDef::new(row::Column::StreamSequence).big_integer().null().take()
}

/// Not every database can be asked to add a column only if it is not there.
async fn add_to_outbox(manager: &SchemaManager<'_>, column: ColumnDef) -> Result<(), DbErr> {
    let name = column.get_column_name();
    if manager.has_column("outbox", &name).await? {
        return Ok(());
    }
    let add = Table::alter().table(row::Entity).add_column(column).take();
    manager.alter_table(add).await
}

fn failures() -> TableCreateStatement {
    use failures::{Column, Entity};
    let column = |column| ColumnDef::new(column).not_null().take();
    TableCreateStatement::new()
        .if_not_exists()
        .table(Entity)
        .col(column(Column::Id).uuid().primary_key())
        .col(column(Column::Attempts).integer())
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

fn dead_letters(manager: &SchemaManager<'_>) -> TableCreateStatement {
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
        .col(bytes(manager, &mut column(Column::Payload)))
        .col(column(Column::Error).text())
        .col(column(Column::Attempts).integer())
        .col(column(Column::DeadTime).big_integer())
        .take()
}
