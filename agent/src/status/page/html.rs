//! HTML in the making. What is fixed goes in as it is and must be a literal; everything else is escaped, there is no other way in.

/// A page or a piece of one.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Markup of ours.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text, also within an attribute in double quotes.
    pub(super) fn text(&mut self, text: impl std::fmt::Display) -> &mut Self {
        for c in text.to_string().chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' => self.0.push('\n'),
                c if c.is_control() || steers(c) => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        self
    }

    /// Markup that was made the same way.
    pub(super) fn piece(&mut self, piece: Self) -> &mut Self {
        self.0.extend([piece.0]);
        self
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

/// Characters that reorder what stands around them.
fn steers(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        let mut html = Html::default();
        html.raw("<p title=\"").text("\" onclick='x' \u{202e}\u{0}").raw("\">").text("<script>&amp;</script>").raw("</p>");
        let expected = "<p title=\"&quot; onclick=&#39;x&#39; \u{fffd}\u{fffd}\">&lt;script&gt;&amp;amp;&lt;/script&gt;</p>";
        assert_eq!(html.into_string(), expected);
    }
}
