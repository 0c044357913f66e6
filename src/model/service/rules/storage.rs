//! Rules for what a container sees of disks: mounts and files.

use std::collections::BTreeSet;

use super::isolation::is_engine_name;
use super::{PARTS_MAX, PATH_RULE, Rules, is_path};
use crate::model::service::{FILES_BYTES_MAX, File, Mount, MountKind, ServiceSpec};

const VOLUME_RULE: &str = "a volume's name: letters, digits, `_`, `.` and `-`";
const FILE_RULE: &str = "the absolute path of a file, without `.` and `..`";
const MODE_RULE: &str = "an octal text such as \"0444\"";

impl ServiceSpec {
    pub(super) fn storage(&self, rules: &mut Rules) {
        rules.at_most("mounts", self.mounts.len(), PARTS_MAX, "mounts");
        rules.at_most("files", self.files.len(), PARTS_MAX, "files");
        let mut taken = BTreeSet::new();
        for (index, mount) in self.mounts.iter().enumerate().take(PARTS_MAX) {
            let field = |name: &str| format!("mounts[{index}].{name}");
            let target = parts(&mount.target);
            let sound = is_path(&mount.target) && !target.is_empty();
            rules.require(sound, &field("target"), &mount.target, PATH_RULE);
            let once = taken.insert(target);
            rules.require(once, &field("target"), &mount.target, "each target once");
            let source = mount.source.as_deref().unwrap_or_default();
            let (sound, allowed) = match mount.kind {
                MountKind::Bind => (is_path(source), PATH_RULE),
                MountKind::Volume => (is_engine_name(source), VOLUME_RULE),
                MountKind::Tmpfs => (source.is_empty(), "nothing, for a tmpfs"),
            };
            rules.require(sound, &field("source"), source, allowed);
            let sound = mount.size.is_none() || mount.kind == MountKind::Tmpfs;
            let given = mount.size.unwrap_or_default();
            rules.require(sound, &field("size"), given, "nothing, except for a tmpfs");
        }
        let mut bytes = 0;
        for (index, file) in self.files.iter().enumerate().take(PARTS_MAX) {
            let field = |name: &str| format!("files[{index}].{name}");
            let path = parts(&file.path);
            let sound = is_path(&file.path) && !path.is_empty() && !file.path.ends_with('/');
            rules.require(sound, &field("path"), &file.path, FILE_RULE);
            let below = |other: &File| is_below(&path, &parts(&other.path));
            let free = taken.insert(path.clone()) && !self.files.iter().any(below);
            let allowed = "each path once, and none below another file";
            rules.require(free, &field("path"), &file.path, allowed);
            if let Some(allowed) = self.hinders(&path) {
                rules.require(false, &field("path"), &file.path, &allowed);
            }
            let mode = u32::from_str_radix(&file.mode, 8).is_ok_and(|mode| mode <= 0o7777);
            rules.require(mode, &field("mode"), &file.mode, MODE_RULE);
            let one = file.content.is_some() != file.base64.is_some();
            rules.require(one, &field("content"), "", "either `content` or `base64`");
            let sound = file.base64.is_none() || file.content.is_some() || file.bytes().is_some();
            rules.require(sound, &field("base64"), "", "base 64 with padding");
            bytes += file.content.as_deref().map_or(0, str::len);
            bytes += file.base64.as_deref().map_or(0, str::len);
        }
        let given = format_args!("{bytes} bytes");
        let allowed = format!("at most {FILES_BYTES_MAX} bytes in all files together");
        rules.require(bytes <= FILES_BYTES_MAX, "files", given, &allowed);
    }

    /// Where a file of this path may lie instead, if it cannot be put there before the start.
    fn hinders(&self, path: &[&str]) -> Option<String> {
        match self.mount_of(path) {
            Some(mount) if mount.kind == MountKind::Tmpfs => Some(format!(
                "a path outside the tmpfs {}, which is mounted over the files when the container starts",
                mount.target
            )),
            Some(mount) if mount.read_only => Some(format!(
                "a path outside the mount {}, which is read-only",
                mount.target
            )),
            None if self.read_only => Some(
                "a path in a writable volume or bind: with `read_only` the container's own file \
                system takes no files"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// The innermost mount that a path lies in.
    fn mount_of(&self, path: &[&str]) -> Option<&Mount> {
        let around = |mount: &&Mount| is_below(path, &parts(&mount.target));
        let depth = |mount: &&Mount| parts(&mount.target).len();
        self.mounts.iter().filter(around).max_by_key(depth)
    }

    /// Path of the folder that a file is put into the container by: the mount it lies in, or `/`.
    pub fn folder_of(&self, file: &File) -> &str {
        let mount = self.mount_of(&parts(&file.path));
        mount.map_or("/", |mount| &mount.target)
    }
}

/// The parts of a path; `/a//b/` has two.
fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty()).collect()
}

fn is_below(path: &[&str], folder: &[&str]) -> bool {
    path.len() > folder.len() && path.starts_with(folder)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{broken, violations};

    fn mounts(mounts: Value) -> Vec<String> {
        broken(json!({"mounts": mounts}))
    }

    fn files(files: Value) -> Vec<String> {
        broken(json!({"files": files}))
    }

    #[test]
    fn each_kind_of_mount_has_its_source() {
        let sound = json!([
            {"type": "bind", "source": "/srv/data", "target": "/data", "read_only": true},
            {"type": "volume", "source": "cache_1", "target": "/data/cache"},
            {"type": "tmpfs", "target": "/run/", "size": "1Mi"},
        ]);
        assert_eq!(mounts(sound), [""; 0]);
        for (kind, source) in [
            ("bind", json!("srv")),
            ("bind", json!("/srv/../etc")),
            ("bind", Value::Null),
            ("volume", json!("/srv")),
            ("volume", json!("a:b")),
            ("volume", Value::Null),
            ("tmpfs", json!("x")),
        ] {
            let mount = json!([{"type": kind, "source": source, "target": "/a"}]);
            assert_eq!(mounts(mount), ["mounts[0].source"], "{kind} {source}");
        }
        let sized = json!([{"type": "volume", "source": "v", "target": "/a", "size": 4096}]);
        assert_eq!(mounts(sized), ["mounts[0].size"]);
    }

    #[test]
    fn targets_are_paths_and_given_once() {
        for target in ["data", "", "/", "/a/../b", "/a\u{0}"] {
            let mount = json!([{"type": "tmpfs", "target": target}]);
            assert_eq!(mounts(mount), ["mounts[0].target"], "{target}");
        }
        let twice = json!([{"type": "tmpfs", "target": "/a"}, {"type": "tmpfs", "target": "/a/"}]);
        assert_eq!(mounts(twice), ["mounts[1].target"]);
        let many: Vec<Value> = (0..101)
            .map(|number| json!({"type": "tmpfs", "target": format!("/{number}")}))
            .collect();
        assert_eq!(mounts(many.into()), ["mounts"]);
    }

    #[test]
    fn files_say_what_they_hold_in_one_way() {
        let sound = json!([
            {"path": "/etc/a", "content": "", "mode": "0", "uid": 1, "gid": 2},
            {"path": "/etc/b", "base64": "aGk=", "mode": "7777", "secret": true},
        ]);
        assert_eq!(files(sound), [""; 0]);
        for (file, field) in [
            (json!({"path": "etc", "content": ""}), "path"),
            (json!({"path": "/etc/", "content": ""}), "path"),
            (json!({"path": "/", "content": ""}), "path"),
            (json!({"path": "/a/./b", "content": ""}), "path"),
            (
                json!({"path": "/a", "content": "", "mode": "0o644"}),
                "mode",
            ),
            (json!({"path": "/a", "content": "", "mode": "99"}), "mode"),
            (
                json!({"path": "/a", "content": "", "mode": "17777"}),
                "mode",
            ),
            (
                json!({"path": "/a", "content": "", "base64": ""}),
                "content",
            ),
            (json!({"path": "/a"}), "content"),
            (json!({"path": "/a", "base64": "aGk"}), "base64"),
            (json!({"path": "/a", "base64": "a=k="}), "base64"),
        ] {
            let shown = file.to_string();
            let field = format!("files[0].{field}");
            assert_eq!(files(json!([file])), [field], "{shown}");
        }
        let large = "x".repeat(300 * 1024);
        let two = json!([{"path": "/a", "content": large}, {"path": "/b", "content": large}]);
        assert_eq!(files(two), ["files"]);
    }

    #[test]
    fn no_file_lies_below_another() {
        let of = |paths: [&str; 2]| {
            files(
                paths
                    .map(|path| json!({"path": path, "content": ""}))
                    .into(),
            )
        };
        assert_eq!(of(["/a/b", "/a/c"]), [""; 0]);
        assert_eq!(of(["/a/b", "/a/bc"]), [""; 0]);
        assert_eq!(of(["/a", "/a"]), ["files[1].path"]);
        assert_eq!(of(["/a", "/a/b"]), ["files[1].path"]);
    }

    #[test]
    fn files_lie_where_they_can_be_put_before_the_start() {
        let of = |read_only: bool, path: &str| {
            violations(json!({
                "read_only": read_only,
                "mounts": [
                    {"type": "volume", "source": "v", "target": "/data"},
                    {"type": "bind", "source": "/srv", "target": "/data/fixed/", "read_only": true},
                    {"type": "tmpfs", "target": "/run"},
                ],
                "files": [{"path": path, "content": ""}],
            }))
        };
        for (read_only, path) in [(false, "/etc/a"), (false, "/data/a"), (true, "/data/x/a")] {
            assert_eq!(of(read_only, path), [], "{path}");
        }
        for (read_only, path, words) in [
            (true, "/etc/a", "own file system takes no files"),
            (true, "/database/a", "own file system takes no files"),
            (false, "/data/fixed/a", "outside the mount /data/fixed/"),
            (false, "/run/a", "outside the tmpfs /run"),
        ] {
            let broken = of(read_only, path);
            assert_eq!(broken.len(), 1, "{path}: {broken:?}");
            assert_eq!(broken[0].field, "files[0].path");
            assert!(broken[0].allowed.contains(words), "{broken:?}");
        }
    }
}
