//! Images instead of texts.

use super::{CallFailed, Client, Embedded, Options};
use crate::pb::client::{Item, item::Input};

// === impl Client ===

impl Client {
    /// Embeds a batch of images, each the bytes of a file; one that fails does so alone.
    ///
    /// # Errors
    /// The call failed; also when every image did, for one reason.
    pub async fn embed_images(
        &mut self,
        files: Vec<Vec<u8>>,
        options: &Options,
    ) -> Result<Vec<Embedded>, CallFailed> {
        let items = files.into_iter().map(|file| Item { input: Some(Input::Image(file)) });
        self.send(items.collect(), options).await.map_err(|status| self.refused(&status))
    }
}
