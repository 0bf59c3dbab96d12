//! Projects: the record of what each `davit apply` looks after. Two that write it at once cannot both succeed, and no
//! object is in two records.

use davit_api::{NamespaceName, ProjectName, ProjectRecord, ProjectView, limits};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use crate::namespaces::id_of;
use crate::rows::{count32, int, parsed};
use crate::{Audited, Registry, RegistryError, Result};

fn view(row: &PgRow) -> Result<ProjectView> {
    let objects: Vec<String> = row.try_get("objects")?;
    let read = |text: String| text.parse().map_err(|e| RegistryError::damaged("objects", e));
    Ok(ProjectView {
        name: parsed(row, "name")?,
        revision: count32(row, "revision")?,
        objects: objects.into_iter().map(read).collect::<Result<_>>()?,
        applied_at: row.try_get("applied_at")?,
    })
}

impl Registry {
    /// A namespace's projects, by name.
    pub async fn list_projects(&self, namespace: &NamespaceName) -> Result<Vec<ProjectView>> {
        let id = self.namespace_id(namespace).await?;
        let rows = sqlx::query(
            "select name, revision, objects, applied_at from projects where namespace_id = $1 order by name",
        )
        .bind(id.0)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(view).collect()
    }
}

impl Audited {
    /// Writes down what a project looks after. Refused when somebody else did since the revision that it names, and when
    /// an object is another project's.
    pub async fn put_project(
        &self,
        namespace: &NamespaceName,
        name: &ProjectName,
        record: &ProjectRecord,
    ) -> Result<ProjectView> {
        record.check()?;
        let (namespace, name) = (namespace.clone(), name.clone());
        let (revision, objects) = (record.revision, record.objects.clone());
        self.change(move |conn| {
            Box::pin(async move {
                let namespace = locked(conn, &namespace).await?;
                let mut texts: Vec<String> = objects.iter().map(ToString::to_string).collect();
                texts.sort();
                let taken = sqlx::query(
                    "select name, (select min(o) from unnest(objects) o where o = any($3)) as object from projects
                     where namespace_id = $1 and name <> $2 and objects && $3 order by name limit 1",
                )
                .bind(namespace)
                .bind(name.as_str())
                .bind(&texts)
                .fetch_optional(&mut *conn)
                .await?;
                if let Some(row) = taken {
                    let (other, object): (&str, &str) = (row.try_get("name")?, row.try_get("object")?);
                    let text = format!("objects: {object} is the project {other}'s");
                    return Err(RegistryError::conflict(text));
                }
                let there: i64 = sqlx::query_scalar("select count(*) from projects where namespace_id = $1")
                    .bind(namespace)
                    .fetch_one(&mut *conn)
                    .await?;
                if revision.is_none() && there >= limits::PROJECTS as i64 {
                    let text = format!("a namespace has at most {} projects", limits::PROJECTS);
                    return Err(RegistryError::conflict(text));
                }
                let statement = match revision {
                    None => {
                        "insert into projects (namespace_id, name, objects) select $1, $2, $3 where $4::int is null
                         on conflict do nothing returning name, revision, objects, applied_at"
                    }
                    Some(_) => {
                        "update projects set objects = $3, revision = revision + 1, applied_at = clock_timestamp()
                         where namespace_id = $1 and name = $2 and revision = $4
                         returning name, revision, objects, applied_at"
                    }
                };
                let row = sqlx::query(statement)
                    .bind(namespace)
                    .bind(name.as_str())
                    .bind(&texts)
                    .bind(revision.map(int))
                    .fetch_optional(conn)
                    .await?;
                view(&row.ok_or_else(|| {
                    RegistryError::conflict("the project was applied by somebody else meanwhile; try again")
                })?)
            })
        })
        .await
    }

    /// Forgets a project's record. What it looked after stays.
    pub async fn remove_project(&self, namespace: &NamespaceName, name: &ProjectName) -> Result<()> {
        let (namespace, name) = (namespace.clone(), name.clone());
        self.change(move |conn| {
            Box::pin(async move {
                let namespace = locked(conn, &namespace).await?;
                let done = sqlx::query("delete from projects where namespace_id = $1 and name = $2")
                    .bind(namespace)
                    .bind(name.as_str())
                    .execute(conn)
                    .await?;
                if done.rows_affected() == 0 {
                    return Err(RegistryError::not_found("project", name));
                }
                Ok(())
            })
        })
        .await
    }
}

/// Records of a namespace are written one after the other.
async fn locked(conn: &mut PgConnection, namespace: &NamespaceName) -> Result<uuid::Uuid> {
    sqlx::query("select from namespaces where name = $1 for no key update")
        .bind(namespace.as_str())
        .execute(&mut *conn)
        .await?;
    Ok(id_of(conn, namespace).await?.0)
}
