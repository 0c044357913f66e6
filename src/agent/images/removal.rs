//! Removing images that nobody uses, once the disk of the engine's data is too full.
//!
//! An image goes if no container of any kind is made from it, if it was neither pulled nor used for
//! a while, if it is not among those used last, and if no label says that it must stay. What an
//! agent does not remember it takes for new: after its start it waits for that while first.
//!
//! Invariant: an image that a container is made from is never removed (`tests/smoke/disk.rs`); the
//! engine refuses that as well, should a container be made in between.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::{Images, lock};
use crate::container::{Image, shown_name};
use crate::telemetry::chain;

/// Time between two looks at the disk; a pull is followed by one at once.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Most images removed in one look.
const REMOVALS_MAX: usize = 50;

impl Images {
    /// Looks again and again, at the disk that holds `data_dir`. Cancel-safe.
    pub(in crate::agent) async fn keep_room(&self, data_dir: Option<PathBuf>) {
        let Some(data_dir) = data_dir else { return };
        let mut seen = HashMap::new();
        loop {
            let full = match used_share(&data_dir) {
                Ok(full) => full,
                Err(error) => {
                    tracing::warn!(
                        path = %data_dir.display(),
                        error = chain(&error),
                        "the engine's data cannot be seen from here: unused images are not removed"
                    );
                    return;
                }
            };
            self.look(&data_dir, full, &mut seen).await;
            tokio::select! {
                () = self.look.notified() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    async fn look(&self, data_dir: &Path, full: f64, seen: &mut HashMap<String, Instant>) {
        let images = match self.runtime.images().await {
            Ok(images) => images,
            Err(error) => {
                tracing::debug!(error = chain(&error), "images cannot be listed now");
                return;
            }
        };
        let pulled: Vec<String> = lock(&self.pulled).drain(..).collect();
        let pulled: Vec<String> = pulled.iter().map(|image| shown_name(image)).collect();
        let now = Instant::now();
        note_use(seen, &images, &pulled, now);
        let settings = &self.settings;
        if full <= settings.image_disk_high {
            return;
        }
        let mut full = full;
        let (unused, kept) = (settings.image_unused, settings.images_kept);
        for image in removable(&images, seen, now, unused, kept) {
            if full <= settings.image_disk_low {
                return;
            }
            if let Err(error) = self.runtime.remove_image(image).await {
                tracing::info!(
                    image = name_of(image),
                    error = chain(&error),
                    "image not removed"
                );
                continue;
            }
            let after = used_share(data_dir).unwrap_or(full);
            tracing::info!(
                image = name_of(image),
                bytes = image.size,
                disk.before = full,
                disk.after = after,
                "unused image removed, the disk was too full"
            );
            full = after;
        }
    }
}

/// Notes when each image was used last; one that is seen for the first time counts as used now.
fn note_use(
    seen: &mut HashMap<String, Instant>,
    images: &[Image],
    pulled: &[String],
    now: Instant,
) {
    seen.retain(|id, _| images.iter().any(|image| image.id == *id));
    for image in images {
        let used = image.is_used || image.names.iter().any(|name| pulled.contains(name));
        let last = seen.entry(image.id.clone()).or_insert(now);
        if used {
            *last = now;
        }
    }
}

/// The images that may be removed, the one used longest ago first.
fn removable<'a>(
    images: &'a [Image],
    seen: &HashMap<String, Instant>,
    now: Instant,
    unused: Duration,
    kept: usize,
) -> Vec<&'a Image> {
    let free = images
        .iter()
        .filter(|image| !image.is_used && !image.is_kept);
    let mut free: Vec<(Instant, &Image)> = free
        .map(|image| (seen.get(&image.id).copied().unwrap_or(now), image))
        .collect();
    // The largest first among equals: fewer have to go.
    free.sort_by_key(|(last, image)| (*last, std::cmp::Reverse(image.size)));
    free.truncate(free.len().saturating_sub(kept).min(REMOVALS_MAX));
    let old = free.into_iter().filter(|(last, _)| now - *last >= unused);
    old.map(|(_, image)| image).collect()
}

fn name_of(image: &Image) -> &str {
    image.names.first().unwrap_or(&image.id)
}

/// The used share of the disk that holds a path, as `df` counts it: what only root may use is none.
fn used_share(path: &Path) -> std::io::Result<f64> {
    let disk = rustix::fs::statvfs(path)?;
    let used = disk.f_blocks.saturating_sub(disk.f_bfree);
    let all = used.saturating_add(disk.f_bavail);
    #[expect(clippy::cast_precision_loss, reason = "a share needs few digits")]
    let share = used as f64 / all.max(1) as f64;
    Ok(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn image(id: &str, size: u64) -> Image {
        Image {
            id: id.to_owned(),
            names: vec![format!("{id}:latest")],
            size,
            is_used: false,
            is_kept: false,
        }
    }

    fn ids(images: Vec<&Image>) -> Vec<&str> {
        images.into_iter().map(|image| image.id.as_str()).collect()
    }

    #[test]
    fn the_longest_unused_goes_first_and_the_last_used_stay() {
        let images = ["a", "b", "c", "d"].map(|id| image(id, 1));
        let start = Instant::now();
        let last = |index: usize| start + HOUR * u32::try_from(4 - index).unwrap();
        let seen = images.iter().enumerate();
        let seen = seen.map(|(index, image)| (image.id.clone(), last(index)));
        let seen: HashMap<String, Instant> = seen.collect();
        let now = start + HOUR * 5;
        let of = |unused, kept| ids(removable(&images, &seen, now, unused, kept));
        assert_eq!(of(Duration::ZERO, 0), ["d", "c", "b", "a"]);
        assert_eq!(of(Duration::ZERO, 3), ["d"]);
        assert_eq!(of(Duration::ZERO, 9), [""; 0]);
        assert_eq!(of(HOUR * 3, 0), ["d", "c"]);
        assert_eq!(of(HOUR * 3, 3), ["d"]);
    }

    #[test]
    fn what_is_used_or_kept_stays() {
        let mut images = ["used", "kept", "small", "large"]
            .map(|id| image(id, 1))
            .to_vec();
        images[0].is_used = true;
        images[1].is_kept = true;
        images[3].size = 2;
        let now = Instant::now();
        let seen = HashMap::new();
        let free = removable(&images, &seen, now, Duration::ZERO, 0);
        assert_eq!(ids(free), ["large", "small"]);
    }

    #[test]
    fn what_is_new_pulled_or_used_counts_as_used_now() {
        let mut images = ["new", "pulled", "used", "old"]
            .map(|id| image(id, 1))
            .to_vec();
        let start = Instant::now();
        let mut seen = HashMap::new();
        note_use(&mut seen, &images[1..], &[], start);
        seen.insert("gone".to_owned(), start);
        images[2].is_used = true;
        let now = start + HOUR;
        note_use(&mut seen, &images, &["pulled:latest".to_owned()], now);
        images[2].is_used = false;
        assert_eq!(ids(removable(&images, &seen, now, HOUR, 0)), ["old"]);
        assert_eq!(seen.len(), 4, "what is gone is forgotten");
        let later = now + HOUR;
        assert_eq!(removable(&images, &seen, later, HOUR, 0).len(), 4);
    }

    #[test]
    fn a_disk_has_a_used_share() {
        let share = used_share(Path::new("/")).unwrap();
        assert!((0.0..=1.0).contains(&share), "{share}");
        assert!(used_share(Path::new("/no/such/path")).is_err());
    }
}
