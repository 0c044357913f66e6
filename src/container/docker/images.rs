//! The engine's images: which there are, their digests, and removing them.

use std::collections::{HashMap, HashSet};

use bollard::models::ImageSummary;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptions,
};

use super::{ASK_LIMIT, Docker, ORDER_LIMIT};
use crate::container::image::shown_repository;
use crate::container::{Image, RuntimeError, Verb};
use crate::model::ImageReference;

/// The label of images that must stay, whatever its value.
const KEEP: &str = "kubeleet.keep";
/// What the engine calls an image without a tag.
const NO_NAME: &str = "<none>:<none>";

impl Docker {
    pub(in crate::container) async fn digest(
        &self,
        image: &str,
    ) -> Result<Option<String>, RuntimeError> {
        let Some(reference) = ImageReference::parse(image) else {
            return Ok(None);
        };
        if let Some(digest) = reference.digest {
            return Ok(Some(digest.to_owned()));
        }
        let inspected = self
            .link
            .call(Verb::Images, ASK_LIMIT, |client| async move {
                client.inspect_image(image).await
            })
            .await;
        match inspected {
            Err(failure) if failure.status == Some(404) => Ok(None),
            other => {
                let digests = other?.repo_digests.unwrap_or_default();
                Ok(digest_of(reference.repository, &digests))
            }
        }
    }

    pub(in crate::container) async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        let listed = self
            .link
            .call(Verb::Images, ASK_LIMIT, |client| async move {
                let options = ListImagesOptionsBuilder::new().build();
                client.list_images(Some(options)).await
            })
            .await?;
        // After the images: one that got its first container in between counts as used.
        let containers = self
            .link
            .call(Verb::List, ASK_LIMIT, |client| async move {
                let options = ListContainersOptionsBuilder::new().all(true).build();
                client.list_containers(Some(options)).await
            })
            .await?;
        let used = containers.into_iter();
        let used: HashSet<String> = used.filter_map(|container| container.image_id).collect();
        let image = |listed: ImageSummary| Image {
            is_used: used.contains(&listed.id),
            is_kept: is_kept(&listed.labels),
            size: u64::try_from(listed.size).unwrap_or(0),
            names: names(listed.repo_tags),
            id: listed.id,
        };
        Ok(listed.into_iter().map(image).collect())
    }

    pub(in crate::container) async fn remove_image(
        &self,
        image: &Image,
    ) -> Result<(), RuntimeError> {
        let by_id = std::slice::from_ref(&image.id);
        let names = if image.names.is_empty() {
            by_id
        } else {
            &image.names
        };
        for name in names {
            let removed = self
                .link
                .call(Verb::RemoveImage, ORDER_LIMIT, |client| async move {
                    // Without force, the engine refuses what any container is made from.
                    let options = None::<RemoveImageOptions>;
                    client.remove_image(name, options, None).await
                })
                .await;
            match removed {
                Err(failure) if failure.status == Some(404) => {}
                other => drop(other?),
            }
        }
        Ok(())
    }
}

fn is_kept(labels: &HashMap<String, String>) -> bool {
    labels.contains_key(KEEP)
}

fn names(tags: Vec<String>) -> Vec<String> {
    tags.into_iter().filter(|tag| tag != NO_NAME).collect()
}

/// The digest that `repository` knows an image by, of those written `repository@digest`.
fn digest_of(repository: &str, digests: &[String]) -> Option<String> {
    let wanted = shown_repository(repository);
    let mut split = digests.iter().filter_map(|digest| digest.split_once('@'));
    let (_, digest) = split.find(|(repository, _)| *repository == wanted)?;
    Some(digest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_its_own_repositorys() {
        let digests = ["other/nginx@sha256:1", "nginx@sha256:2"].map(str::to_owned);
        for (repository, digest) in [
            ("nginx", Some("sha256:2")),
            ("docker.io/library/nginx", Some("sha256:2")),
            ("other/nginx", Some("sha256:1")),
            ("third/nginx", None),
        ] {
            assert_eq!(digest_of(repository, &digests).as_deref(), digest);
        }
    }
}
