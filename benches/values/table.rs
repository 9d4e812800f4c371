//! Rows by codec, in Markdown.

use sessions::Codec;

/// The default configuration is bincode's, and comes last.
pub(crate) const CODECS: [Codec; 4] =
    [Codec::Postcard, Codec::Json, Codec::MessagePack, Codec::Bincode];

pub(crate) enum Change {
    /// The value came back, in so many bytes.
    Kept(usize),
    /// It came back without what its own `Serialize` leaves out.
    LeftOut,
    /// The stored value was converted into the new type.
    Converted,
    /// The field has its default, and a warning says why.
    Default,
    /// The save was refused, with this to write.
    Refused(String),
    /// Another value was read.
    Wrong(String),
    /// It was stored, and the next request could not read it.
    Lost(String),
}

impl Change {
    fn text(&self) -> String {
        match self {
            Self::Kept(bytes) => format!("ok ({bytes} B)"),
            Self::LeftOut => "left out by its `Serialize`".to_string(),
            Self::Converted => "converted".to_string(),
            Self::Default => "default, warned".to_string(),
            Self::Refused(line) => format!("refused: {line}"),
            Self::Wrong(value) => format!("**WRONG** `{value}`"),
            Self::Lost(why) => format!("**LOST** {why}"),
        }
    }
}

#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<(String, Vec<Change>)>,
}

impl Table {
    pub(crate) fn row(&mut self, label: &str, outcome: impl Fn(Codec) -> Change) {
        self.rows.push((label.to_string(), CODECS.into_iter().map(outcome).collect()));
    }

    pub(crate) fn print(&self, first: &str) {
        println!("| {first} | postcard | JSON | MessagePack | bincode (default configuration) |");
        println!("| --- | --- | --- | --- | --- |");
        for (label, outcomes) in &self.rows {
            let texts: Vec<_> = outcomes.iter().map(Change::text).collect();
            println!("| {label} | {} |", texts.join(" | "));
        }
        println!();
        println!(
            "| of {} | kept or converted | default, warned | refused | left out | WRONG or LOST |",
            self.rows.len()
        );
        println!("| --- | --- | --- | --- | --- | --- |");
        for (at, codec) in CODECS.iter().enumerate() {
            let count = |is: fn(&Change) -> bool| {
                self.rows.iter().filter(|(_, outcomes)| is(&outcomes[at])).count()
            };
            println!(
                "| {codec} | {} | {} | {} | {} | {} |",
                count(|it| matches!(it, Change::Kept(_) | Change::Converted)),
                count(|it| matches!(it, Change::Default)),
                count(|it| matches!(it, Change::Refused(_))),
                count(|it| matches!(it, Change::LeftOut)),
                count(Change::is_bad),
            );
        }
        println!();
    }

    pub(crate) fn has_bad(&self) -> bool {
        self.rows.iter().flat_map(|(_, outcomes)| outcomes).any(Change::is_bad)
    }
}

impl Change {
    fn is_bad(&self) -> bool {
        matches!(self, Self::Wrong(_) | Self::Lost(_))
    }
}

/// Of an error's text, what it says to write.
pub(crate) fn line_to_write(message: &str) -> String {
    let quoted = message.rsplit_once("rite ").map_or(message, |(_, rest)| rest);
    let all = message.split('`').skip(1).step_by(2);
    let lines = all.filter(|text| text.starts_with("#[") || text.starts_with("Option<("));
    let lines: Vec<_> = lines.map(|text| format!("`{text}`")).collect();
    match lines.is_empty() {
        true => quoted.to_string(),
        false => lines.join(" or "),
    }
}
