//! Table changes as a source: the outbox in somebody's own Postgres, read by `davit_outbox`.

use std::sync::Arc;
use std::time::Duration;

use davit_api::{PostgresSource, SourceId, SourceName};
use davit_daemon::Allowed;
use davit_outbox::{Address, Change, Outbox, Reader, Trouble};
use davit_registry::SourceRow;

use super::fetch::{Fetched, Source};

/// The changes of one table.
pub(crate) struct TableChanges {
    id: SourceId,
    name: SourceName,
    spec: PostgresSource,
    outbox: Outbox,
    /// The secret's value.
    url: Option<String>,
    allowed: Arc<Allowed>,
    reader: Option<Reader>,
}

impl TableChanges {
    /// Those of a source, not connected yet.
    pub(crate) fn new(row: &SourceRow, spec: &PostgresSource, allowed: Arc<Allowed>) -> Self {
        Self {
            id: row.id,
            name: row.name.clone(),
            spec: spec.clone(),
            outbox: Outbox::new(row.id, &row.namespace, &row.name, spec),
            url: row.secret.clone(),
            allowed,
            reader: None,
        }
    }

    /// The connection, which whoever takes it puts back when all went well: after an error it is not used again.
    async fn take(&mut self) -> Result<Reader, String> {
        match self.reader.take() {
            Some(reader) => Ok(reader),
            None => self.open().await,
        }
    }

    async fn open(&self) -> Result<Reader, String> {
        let missing = || format!("the secret {} does not exist", self.spec.secret);
        let url = self.url.as_deref().ok_or_else(missing)?;
        let address = Address::parse(url).map_err(text)?;
        let opened = Reader::open(&address, &self.allowed, self.outbox.clone()).await;
        opened.map_err(text)
    }
}

impl Source for TableChanges {
    async fn poll(&mut self, most: u32) -> Result<Vec<Fetched>, String> {
        let mut reader = self.take().await?;
        let changes = reader.read(most).await.map_err(text)?;
        self.reader = Some(reader);
        let fetched = |change: Change| Fetched {
            position: change.position(),
            payload: change.payload(&self.name, &self.spec.table),
            ordering_key: change.ordering_key(self.spec.order, self.id),
            age: Duration::try_from_secs_f64(change.age).unwrap_or_default(),
        };
        Ok(changes.into_iter().map(fetched).collect())
    }

    async fn acknowledge(&mut self, positions: &[String]) -> Result<(), String> {
        let mut reader = self.take().await?;
        reader.acknowledge(positions).await.map_err(text)?;
        self.reader = Some(reader);
        Ok(())
    }

    async fn wait(&mut self, at_most: Duration) -> Result<(), String> {
        let mut reader = self.take().await?;
        reader.wait(at_most).await.map_err(text)?;
        self.reader = Some(reader);
        Ok(())
    }
}

fn text(trouble: Trouble) -> String {
    trouble.to_string()
}
