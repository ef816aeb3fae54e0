//! The words of a condition.

use super::number::Number;
use super::syntax::ExpressionError;

/// Signs, longer ones first where one begins with another.
const SIGNS: [&str; 21] = [
    "||", "&&", "==", "!=", "<=", ">=", "<", ">", "!", "+", "-", "*", "/", "%", "(", ")", "[", "]", ".", ",", "?",
];

/// A word and where it begins, in characters from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) column: usize,
    pub(super) kind: TokenKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenKind {
    Name(Box<str>),
    Number(Number),
    Text(Box<str>),
    Sign(&'static str),
    End,
}

impl TokenKind {
    /// As an error calls it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Name(name) => format!("`{name}`"),
            Self::Number(_) => "a number".into(),
            Self::Text(_) => "a text".into(),
            Self::Sign(sign) => format!("`{sign}`"),
            Self::End => "the end".into(),
        }
    }
}

/// Splits a text into words, the last of which is the end.
pub(super) fn lex(text: &str) -> Result<Vec<Token>, ExpressionError> {
    let chars: Vec<char> = text.chars().collect();
    let mut lexer = Lexer { rest: &chars, column: 1 };
    let mut tokens = Vec::new();
    loop {
        lexer.take_while(char::is_ascii_whitespace);
        let column = lexer.column;
        let kind = lexer.word()?;
        let ended = kind == TokenKind::End;
        tokens.push(Token { column, kind });
        if ended {
            return Ok(tokens);
        }
    }
}

struct Lexer<'c> {
    rest: &'c [char],
    column: usize,
}

impl Lexer<'_> {
    fn word(&mut self) -> Result<TokenKind, ExpressionError> {
        let Some(first) = self.rest.first().copied() else {
            return Ok(TokenKind::End);
        };
        match first {
            'a'..='z' | 'A'..='Z' | '_' => {
                let name = self.take_while(|c| c.is_ascii_alphanumeric() || *c == '_');
                Ok(TokenKind::Name(name.into()))
            }
            '0'..='9' => self.number(),
            '"' | '\'' => self.text(first),
            ':' => {
                self.skip(1);
                Ok(TokenKind::Sign(":"))
            }
            _ => {
                let begins = |sign: &&&str| sign.chars().eq(self.rest.iter().take(sign.len()).copied());
                let sign = SIGNS
                    .iter()
                    .find(begins)
                    .ok_or_else(|| self.error(format!("`{first}` means nothing here")))?;
                self.skip(sign.len());
                Ok(TokenKind::Sign(sign))
            }
        }
    }

    fn number(&mut self) -> Result<TokenKind, ExpressionError> {
        let start = self.column;
        let mut text = self.take_while(char::is_ascii_digit);
        if let ['.', digit, ..] = self.rest
            && digit.is_ascii_digit()
        {
            self.skip(1);
            text.push('.');
            text.push_str(&self.take_while(char::is_ascii_digit));
        }
        if self.rest.first().is_some_and(|c| c.is_ascii_alphanumeric() || *c == '_') {
            return Err(self.error("numbers are written like 12 or 0.5, without exponent, suffix or base"));
        }
        let number = Number::parse(&text).ok_or_else(|| ExpressionError::new(start, "a number with too many digits"))?;
        Ok(TokenKind::Number(number))
    }

    fn text(&mut self, quote: char) -> Result<TokenKind, ExpressionError> {
        let start = self.column;
        self.skip(1);
        let mut text = String::new();
        loop {
            text.push_str(&self.take_while(|c| *c != quote && *c != '\\' && *c != '\n'));
            match self.rest {
                [c, ..] if *c == quote => {
                    self.skip(1);
                    return Ok(TokenKind::Text(text.into()));
                }
                ['\\', escaped, ..] => {
                    text.push(match escaped {
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        '\\' | '"' | '\'' => *escaped,
                        _ => return Err(self.error("an escape other than \\n, \\r, \\t, \\\\, \\\" and \\'")),
                    });
                    self.skip(2);
                }
                _ => return Err(ExpressionError::new(start, "a text whose quote is never closed")),
            }
        }
    }

    fn take_while(&mut self, fits: impl Fn(&char) -> bool) -> String {
        let count = self.rest.iter().take_while(|c| fits(c)).count();
        let taken = self.rest.iter().take(count).collect();
        self.skip(count);
        taken
    }

    fn skip(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
        self.column = self.column.saturating_add(count);
    }

    fn error(&self, message: impl Into<String>) -> ExpressionError {
        ExpressionError::new(self.column, message)
    }
}
