//! The servers that tests stand on: they come up, they keep what they are told when they are killed, they go when they are dropped.

use testbed::{DatabaseServer, Engine, Nats};

#[tokio::test]
async fn a_database_server_keeps_what_it_stored_when_it_is_killed() -> anyhow::Result<()> {
    for engine in [Engine::Postgres, Engine::MariaDb] {
        let mut server = DatabaseServer::start(engine, &[]).await?;
        server.create("shop")?;
        server.sql_in("shop", "CREATE TABLE notes (note INT)")?;
        server.sql_in("shop", "INSERT INTO notes VALUES (7)")?;
        server.kill().await?;
        server.restart().await?;
        assert_eq!(server.sql_in("shop", "SELECT note FROM notes")?, "7\n", "{engine:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_nats_server_comes_up_again_after_it_was_killed() -> anyhow::Result<()> {
    let mut nats = Nats::configured("jetstream { sync_interval: always }").await?;
    nats.kill().await?;
    nats.restart().await?;
    nats.stop().await?;
    nats.save()?;
    nats.restore()?;
    nats.restart().await?;
    assert!(nats.log().contains("Starting JetStream"), "{}", nats.log());
    Ok(())
}
