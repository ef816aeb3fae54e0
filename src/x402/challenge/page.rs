//! The page that a person sees: what is charged, to whom, and how to pay. Self-contained, no scripts.

use core::fmt::{self, Write as _};

use super::{Challenge, Said, decimal};
use crate::pricing::Scheme;

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Payment required</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
h1{font-size:1.5rem}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.4rem .6rem;border-bottom:1px solid #ddd}
code{font-size:.85em;overflow-wrap:anywhere}.why{color:#555}
@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}th,td{border-color:#444}.why{color:#aaa}}
</style>
</head>
<body>
<h1>Payment required</h1>
"#;

const FOOT: &str = r#"<h2>How to pay</h2>
<p>This resource is sold by the request with <a href="https://www.x402.org">x402</a>. A client that speaks it pays by itself:
the offers are in the <code>PAYMENT-REQUIRED</code> header of this answer, and in its body for clients that do not ask for HTML.</p>
</body>
</html>
"#;

/// Text in a page: whatever it holds, it stays text, within quotes too.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => f.write_char(c),
        })
    }
}

/// The page for a challenge.
pub(super) fn page(challenge: &Challenge<'_>, said: &Said) -> String {
    let mut out = String::from(HEAD);
    // Writing to a String cannot fail.
    let _ = write_offers(&mut out, challenge, said);
    out.push_str(FOOT);
    out
}

fn write_offers(out: &mut String, challenge: &Challenge<'_>, said: &Said) -> fmt::Result {
    writeln!(out, "<p><code>{}</code></p>", Text(challenge.resource.url))?;
    if !challenge.resource.description.is_empty() {
        writeln!(out, "<p>{}</p>", Text(challenge.resource.description))?;
    }
    writeln!(
        out,
        r#"<p class="why">{} ({}): {}</p>"#,
        Text(&said.error),
        Text(said.code),
        Text(&said.message)
    )?;
    out.push_str("<table>\n<tr><th>Price</th><th>Network</th><th>Paid to</th></tr>\n");
    for payable in challenge.ready() {
        let offer = payable.offer;
        let most = match offer.scheme {
            Scheme::Exact => "",
            Scheme::Upto => "at most ",
        };
        writeln!(
            out,
            "<tr><td>{most}{} {}</td><td>{}</td><td><code>{}</code></td></tr>",
            decimal(offer),
            Text(&offer.asset.symbol),
            Text(offer.asset.network.v1_name()),
            Text(payable.seller())
        )?;
    }
    out.push_str("</table>\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(Text("<b a='\"'>&</b>").to_string(), "&lt;b a=&#39;&quot;&#39;&gt;&amp;&lt;/b&gt;");
    }
}
