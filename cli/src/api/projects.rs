//! Projects, and what `davit apply` and `davit dev` ask besides.

use davit_api::{
    NamespaceName, NewNamespace, ProjectName, ProjectRecord, ProjectView, SecretComparison, SecretName,
    SecretValue,
};
use reqwest::Method;

use super::Api;
use crate::failure::Result;

impl Api {
    /// Makes a namespace unless it is there.
    pub(crate) async fn ensure_namespace(&self, name: &NamespaceName) -> Result<()> {
        let body = NewNamespace { name: name.clone() };
        self.management.post::<NewNamespace>("/v1/namespaces", &body).await.map(|_| ())
    }

    pub(crate) async fn projects(&self) -> Result<Vec<ProjectView>> {
        self.management.get(&self.in_namespace("projects")).await
    }

    pub(crate) async fn put_project(
        &self,
        name: &ProjectName,
        record: &ProjectRecord,
    ) -> Result<ProjectView> {
        let path = self.in_namespace(&format!("projects/{name}"));
        self.management.json(self.management.request(Method::PUT, &path).json(record)).await
    }

    pub(crate) async fn remove_project(&self, name: &ProjectName) -> Result<()> {
        self.management.delete(&self.in_namespace(&format!("projects/{name}"))).await
    }

    /// Whether a secret has this value.
    pub(crate) async fn secret_is(&self, name: &SecretName, value: &str) -> Result<bool> {
        let path = self.in_namespace(&format!("secrets/{name}/compare"));
        let body = SecretValue { value: value.to_owned() };
        Ok(self.management.post::<SecretComparison>(&path, &body).await?.same)
    }
}
