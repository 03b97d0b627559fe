//! The page at `/`: the node at a glance, from three files that are part of the program.

use super::answer::{Answer, Status};

const HTML: &str = include_str!("page/page.html");
const CSS: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The page loads and asks nothing but the gateway, runs no script but its own, and is shown in no other page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The part of the page at this path, without its first slash.
pub(super) fn find(path: &str) -> Option<Answer> {
    let (media, text) = match path {
        "" => ("text/html; charset=utf-8", HTML),
        "page.css" => ("text/css; charset=utf-8", CSS),
        "page.js" => ("text/javascript; charset=utf-8", SCRIPT),
        _ => return None,
    };
    let answer = Answer::new(Status::OK, media, text.into())
        .with("Content-Security-Policy", POLICY)
        .with("Referrer-Policy", "no-referrer")
        .with("Cross-Origin-Resource-Policy", "same-origin")
        // Another version of the program has another page.
        .with("Cache-Control", "no-cache");
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_needs_nothing_from_elsewhere() {
        assert!(HTML.len() + CSS.len() + SCRIPT.len() < 40 << 10);
        for text in [HTML, CSS, SCRIPT] {
            let outside = text.replace("http://www.w3.org/2000/svg", "");
            assert!(
                !outside.contains("http://") && !outside.contains("https://") && !outside.contains("//cdn")
            );
            for markup in [
                "innerHTML",
                "outerHTML",
                "insertAdjacent",
                "document.write",
                "eval(",
                " style=",
                " onclick=",
            ] {
                assert!(!text.contains(markup), "{markup}");
            }
        }
        let html = find("").unwrap();
        assert!(
            html.fields.iter().any(|(name, value)| *name == "Content-Security-Policy" && value == POLICY)
        );
        assert!(find("page.js").is_some() && find("page.css").is_some() && find("x").is_none());
    }
}
