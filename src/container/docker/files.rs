//! The files of a spec: packed as archives, one for each mount they lie in, and given to the engine.
//!
//! Nothing of what they hold is logged: the archives are sent as streams, which the client does
//! not show at any level.

use std::time::{SystemTime, UNIX_EPOCH};

use bollard::query_parameters::UploadToContainerOptionsBuilder;
use futures_util::stream;

use super::{Docker, ORDER_LIMIT};
use crate::container::{RuntimeError, Verb};
use crate::model::ServiceSpec;

/// Files that share a folder of the container to be unpacked in.
#[derive(Debug, PartialEq, Eq)]
struct Archive {
    folder: String,
    tar: Vec<u8>,
}

impl Docker {
    pub(in crate::container) async fn put_files(
        &self,
        id: &str,
        spec: &ServiceSpec,
    ) -> Result<(), RuntimeError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "files are as old as they are for whoever looks at them"
        )]
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let packed = archives(spec, now.unwrap_or_default().as_secs());
        let packed = packed.map_err(|error| RuntimeError::Refused {
            verb: Verb::PutFiles,
            message: error.to_string(),
        })?;
        for Archive { folder, tar } in packed {
            let options = UploadToContainerOptionsBuilder::new().path(&folder).build();
            let body = stream::iter([tar.into()]);
            let put = self
                .link
                .call(Verb::PutFiles, ORDER_LIMIT, |client| async move {
                    let body = bollard::body_stream(body);
                    client.upload_to_container(id, Some(options), body).await
                })
                .await;
            match put {
                Err(failure) if failure.is_container_missing() => {
                    return Err(RuntimeError::ContainerMissing { id: id.to_owned() });
                }
                other => other?,
            }
        }
        Ok(())
    }
}

/// The files of a spec by the mount that each lies in. The engine unpacks an archive as a whole
/// either in the container's own file system or in one mount, and judges by that whether it may.
fn archives(spec: &ServiceSpec, mtime_s: u64) -> std::io::Result<Vec<Archive>> {
    let mut builders: Vec<(&str, tar::Builder<Vec<u8>>)> = Vec::new();
    for file in &spec.files {
        let folder = spec.folder_of(file);
        let known = builders.iter().position(|(known, _)| *known == folder);
        let at = known.unwrap_or_else(|| {
            builders.push((folder, tar::Builder::new(Vec::new())));
            builders.len() - 1
        });
        let no_content = || std::io::Error::other(format!("{} has no content", file.path));
        let bytes = file.bytes().ok_or_else(no_content)?;
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(file.mode_bits());
        header.set_uid(file.uid.into());
        header.set_gid(file.gid.into());
        header.set_mtime(mtime_s);
        let path = within(&file.path, folder);
        builders[at]
            .1
            .append_data(&mut header, path, bytes.as_ref())?;
    }
    let packed = builders.into_iter().map(|(folder, builder)| {
        Ok(Archive {
            folder: folder.to_owned(),
            tar: builder.into_inner()?,
        })
    });
    packed.collect()
}

/// The path of a file within the folder it lies in.
fn within(path: &str, folder: &str) -> String {
    let parts = |path: &str| -> Vec<String> {
        let parts = path.split('/').filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    };
    parts(path)[parts(folder).len()..].join("/")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use serde_json::json;

    use super::*;

    #[test]
    fn files_are_packed_by_the_mount_they_lie_in() {
        let long = "x".repeat(90);
        let spec: ServiceSpec = serde_json::from_value(json!({
            "name": "a", "image": "b",
            "mounts": [
                {"type": "volume", "source": "v", "target": "/data/"},
                {"type": "volume", "source": "w", "target": "/data/deep"},
            ],
            "files": [
                {"path": "/etc/app.conf", "content": "key = 1", "mode": "0640", "uid": 7, "gid": 8},
                {"path": "/data/a", "base64": "AP8="},
                {"path": format!("//opt/{long}/{long}"), "content": ""},
                {"path": "/data/deep/b", "content": "b", "mode": "4755"},
            ],
        }))
        .unwrap();
        let mut seen = Vec::new();
        for archive in archives(&spec, 1_700_000_000).unwrap() {
            let mut reader = tar::Archive::new(archive.tar.as_slice());
            for entry in reader.entries().unwrap() {
                let mut entry = entry.unwrap();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                let (header, path) = (entry.header(), entry.path().unwrap());
                assert_eq!(header.mtime().unwrap(), 1_700_000_000);
                let owner = (header.uid().unwrap(), header.gid().unwrap());
                let path = path.display().to_string();
                let mode = format!("{:o}", header.mode().unwrap());
                seen.push((archive.folder.clone(), path, mode, owner, bytes));
            }
        }
        let expected = [
            ("/", "etc/app.conf", "640", (7, 8), b"key = 1".as_slice()),
            ("/", &format!("opt/{long}/{long}"), "444", (0, 0), b""),
            ("/data/", "a", "444", (0, 0), &[0, 255]),
            ("/data/deep", "b", "4755", (0, 0), b"b"),
        ];
        let expected = expected.map(|(folder, path, mode, owner, bytes)| {
            (
                folder.to_owned(),
                path.to_owned(),
                mode.to_owned(),
                owner,
                bytes.to_vec(),
            )
        });
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_file_without_content_is_named() {
        let mut spec = ServiceSpec::new("a", "b");
        let file = json!({"path": "/a", "secret": true});
        spec.files = vec![serde_json::from_value(file).unwrap()];
        let error = archives(&spec, 0).unwrap_err();
        assert_eq!(error.to_string(), "/a has no content");
    }
}
