//! Types of content, by the extension of the name that a request gives a file.

/// The types of files that clients treat by their type. All others are bytes.
const TYPES: &[(&str, &str)] = &[
    ("aac", "audio/aac"),
    ("avif", "image/avif"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("flac", "audio/flac"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("m4a", "audio/mp4"),
    ("m4v", "video/mp4"),
    ("md", "text/markdown; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mkv", "video/x-matroska"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpd", "application/dash+xml"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("opus", "audio/ogg"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("ts", "video/mp2t"),
    ("txt", "text/plain; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
    ("xml", "application/xml"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

/// The type of a file that a request gives this name.
pub(super) fn type_of(name: &str) -> &'static str {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let found = TYPES.iter().find(|(known, _)| extension.eq_ignore_ascii_case(known));
    found.map_or("application/octet-stream", |(_, media)| media)
}

/// Whether a browser runs scripts that content of this type contains.
pub(super) fn can_script(media: &str) -> bool {
    ["text/html", "image/svg", "application/xml", "application/dash"]
        .iter()
        .any(|kind| media.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_type_and_an_unknown_one_is_bytes() {
        assert_eq!(type_of("clip.MP4"), "video/mp4");
        assert_eq!(type_of("a.tar.gz"), "application/gzip");
        for name in ["", "mp4", "x.", "x.exe", ".html.x"] {
            assert_eq!(type_of(name), "application/octet-stream", "{name}");
        }
        let scripted: Vec<_> =
            TYPES.iter().filter(|(_, media)| can_script(media)).map(|(name, _)| *name).collect();
        assert_eq!(scripted, ["htm", "html", "mpd", "svg", "xml"]);
    }
}
