//! The little of Markdown that the runbook is written in, as HTML: headings, paragraphs, lists, tables, code. Pure; the text is ours and compiled
//! in, and is escaped all the same.

use super::html::Html;

/// What is open while lines are gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    None,
    Paragraph,
    Bullets,
    Numbers,
    Table,
    Code,
}

impl Block {
    fn opens(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Paragraph => "<p>",
            Self::Bullets => "<ul><li>",
            Self::Numbers => "<ol><li>",
            Self::Table => "<div class=\"scroll\" tabindex=\"0\"><table><tbody>",
            Self::Code => "<pre tabindex=\"0\">",
        }
    }

    fn closes(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Paragraph => "</p>",
            Self::Bullets => "</li></ul>",
            Self::Numbers => "</li></ol>",
            Self::Table => "</tbody></table></div>",
            Self::Code => "</pre>",
        }
    }
}

/// Blocks that lie in each other: a list, and code or a table within its item.
struct Writer {
    html: Html,
    /// Lines that are not written yet: what is marked may go over their ends.
    text: String,
    outer: Block,
    inner: Block,
}

pub(super) fn render(text: &str) -> Html {
    let mut writer = Writer { html: Html::default(), text: String::new(), outer: Block::None, inner: Block::None };
    for line in text.lines() {
        writer.line(line);
    }
    writer.turn(Block::None);
    writer.html
}

impl Writer {
    fn flush(&mut self) {
        inline(&mut self.html, &std::mem::take(&mut self.text));
    }

    fn inner(&mut self, to: Block) {
        self.flush();
        if self.inner != to {
            self.html.raw(self.inner.closes()).raw(to.opens());
            self.inner = to;
        }
    }

    fn turn(&mut self, to: Block) {
        self.inner(Block::None);
        if self.outer != to {
            self.html.raw(self.outer.closes()).raw(to.opens());
            self.outer = to;
        }
    }

    /// Another item of a list, or its first.
    fn item(&mut self, list: Block, text: &str) {
        if self.outer == list {
            self.inner(Block::None);
            self.html.raw("</li><li>");
        } else {
            self.turn(list);
        }
        self.text.push_str(text);
    }

    fn line(&mut self, line: &str) {
        let (trimmed, is_within) = (line.trim(), line.starts_with("  "));
        if trimmed.starts_with("```") {
            return match (self.inner, self.outer) {
                (Block::Code, _) => self.inner(Block::None),
                _ if is_within => self.inner(Block::Code),
                _ => {
                    self.turn(Block::None);
                    self.inner(Block::Code);
                }
            };
        }
        if self.inner == Block::Code {
            self.html.text(line).raw("\n");
        } else if trimmed.is_empty() {
            // A list goes on behind an empty line where its text is indented.
            if self.outer == Block::Paragraph {
                self.turn(Block::None);
            } else {
                self.inner(Block::None);
            }
        } else if trimmed.starts_with('|') {
            self.row(trimmed, is_within);
        } else if let Some(title) = trimmed.strip_prefix('#') {
            self.turn(Block::None);
            self.html.raw("<h3>").text(title.trim_start_matches('#').trim()).raw("</h3>");
        } else if let Some(text) = trimmed.strip_prefix("- ") {
            self.item(Block::Bullets, text);
        } else if let Some(text) = numbered(trimmed) {
            self.item(Block::Numbers, text);
        } else {
            if !(is_within && self.outer != Block::None) && self.outer != Block::Paragraph {
                self.turn(Block::Paragraph);
            } else if self.inner == Block::None {
                self.text.push('\n');
            } else {
                self.inner(Block::None);
            }
            self.text.push_str(trimmed);
        }
    }

    fn row(&mut self, line: &str, is_within: bool) {
        if !is_within && self.inner != Block::Table {
            self.turn(Block::None);
        }
        self.inner(Block::Table);
        let cells = line.trim_matches('|').split('|').map(str::trim);
        if cells.clone().all(|cell| cell.bytes().all(|b| matches!(b, b'-' | b':'))) {
            return;
        }
        self.html.raw("<tr>");
        for cell in cells {
            self.html.raw("<td>");
            inline(&mut self.html, cell);
            self.html.raw("</td>");
        }
        self.html.raw("</tr>");
    }
}

fn numbered(line: &str) -> Option<&str> {
    let (number, text) = line.split_once(". ")?;
    (!number.is_empty() && number.len() <= 2 && number.bytes().all(|b| b.is_ascii_digit())).then_some(text)
}

/// `code`, **strong** and *stressed* words; a mark without its pair is text.
fn inline(html: &mut Html, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*']) {
        html.text(&rest[..at]);
        rest = &rest[at..];
        let (mark, open, close): (&str, &'static str, &'static str) = match () {
            () if rest.starts_with('`') => ("`", "<code>", "</code>"),
            () if rest.starts_with("**") => ("**", "<strong>", "</strong>"),
            () => ("*", "<em>", "</em>"),
        };
        let behind = &rest[mark.len()..];
        if let Some(end) = behind.find(mark).filter(|end| *end > 0 && !behind.starts_with(' ')) {
            html.raw(open);
            if mark == "`" {
                html.text(&behind[..end]);
            } else {
                inline(html, &behind[..end]); // shorter every time
            }
            html.raw(close);
            rest = &behind[end + mark.len()..];
        } else {
            html.text(mark);
            rest = behind;
        }
    }
    html.text(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_runbook_uses_becomes_what_it_means() {
        let text = "A `b<c` and **strong** word;\ngoes *on* 2 * 3, **if `x`**.\n\n1. First\n   more\n\n   ```text\n   <code>\n   ```\n2. Second\n\n- x\n\n| a | b |\n|---|---|\n| 1 | 2 |\nEnd.";
        let expected = "<p>A <code>b&lt;c</code> and <strong>strong</strong> word;\ngoes <em>on</em> 2 * 3, <strong>if <code>x</code></strong>.</p>\
            <ol><li>First\nmore<pre tabindex=\"0\">   &lt;code&gt;\n</pre></li><li>Second</li></ol><ul><li>x</li></ul>\
            <div class=\"scroll\" tabindex=\"0\"><table><tbody><tr><td>a</td><td>b</td></tr><tr><td>1</td><td>2</td></tr></tbody></table></div>\
            <p>End.</p>";
        assert_eq!(render(text).into_string(), expected);
    }
}
