//! A certificate authority made for one test, and a server's certificate signed by it.

use std::path::{Path, PathBuf};

use super::spawn::run;

/// Files of a throw-away authority; deleted on drop.
pub struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    /// Makes an authority and a certificate for 127.0.0.1.
    pub fn make() -> Certificates {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        let key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let openssl = |arguments: &[&str]| run(at, "openssl", arguments);
        openssl(
            &[
                &[
                    "req",
                    "-x509",
                    "-days",
                    "2",
                    "-subj",
                    "/CN=kubeleet test authority",
                ][..],
                &key[..],
                &["-keyout", "ca.key", "-out", "ca.crt"][..],
            ]
            .concat(),
        );
        openssl(
            &[
                &["req", "-subj", "/CN=localhost"][..],
                &key[..],
                &["-keyout", "server.key", "-out", "server.csr"][..],
            ]
            .concat(),
        );
        let names = "subjectAltName=IP:127.0.0.1,DNS:localhost\n";
        std::fs::write(at.join("names"), names).expect("a file");
        openssl(&[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            "server.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-extfile",
            "names",
            "-out",
            "server.crt",
        ]);
        Certificates { folder }
    }

    /// The authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// A file such as `server.key`.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }
}
