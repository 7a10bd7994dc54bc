//! What Plimsoll itself asks about images.

use std::collections::BTreeMap;

use http::Method;
use serde::Deserialize;

use super::calls::{absent, encode, image};
use super::types::null_default;
use super::{Engine, EngineError};

/// One image of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageSummary {
    /// `sha256:` and 64 digits.
    pub id: String,
    /// Names with tags.
    #[serde(deserialize_with = "null_default")]
    pub repo_tags: Vec<String>,
    /// Names with digests.
    #[serde(deserialize_with = "null_default")]
    pub repo_digests: Vec<String>,
    /// When it was made, seconds since 1970.
    pub created: i64,
    /// Labels.
    #[serde(deserialize_with = "null_default")]
    pub labels: BTreeMap<String, String>,
}

/// One step of an image's making.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageHistory {
    /// The command.
    pub created_by: String,
    /// Bytes of the step's layer; 0 for one that made none.
    pub size: u64,
}

impl Engine {
    /// Every image that has a name.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn images(&self) -> Result<Vec<ImageSummary>, EngineError> {
        self.ask("its images", "/images/json").await
    }

    /// How an image was made, newest step first; `None` when there is none.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn image_history(
        &self,
        name: &str,
    ) -> Result<Option<Vec<ImageHistory>>, EngineError> {
        let path = format!("/images/{}/history", image(name)?);
        absent(self.ask("an image's history", &path).await)
    }

    /// Gives an image another name, taking it from the image that had it.
    ///
    /// # Errors
    /// [`EngineError`], 404 when there is no such image.
    pub async fn image_tag(&self, id: &str, reference: &str) -> Result<(), EngineError> {
        let (repository, tag) = reference.rsplit_once(':').unwrap_or((reference, "latest"));
        let path = format!(
            "/images/{}/tag?repo={}&tag={}",
            image(id)?,
            encode(repository),
            encode(tag)
        );
        self.order("a tagged image", Method::POST, &path).await
    }

    /// Takes a name away. The image goes with its last one, unless a container uses it. Says whether
    /// the name was there.
    ///
    /// # Errors
    /// [`EngineError`], 409 when a container uses the image.
    pub async fn image_untag(&self, reference: &str) -> Result<bool, EngineError> {
        let path = format!("/images/{}", image(reference)?);
        let done = self.order("an untagged image", Method::DELETE, &path);
        absent(done.await).map(|done| done.is_some())
    }
}
