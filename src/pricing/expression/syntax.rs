//! The tree that a condition is parsed into, and what can be wrong with its text.

use core::fmt;

use super::number::Number;

/// Why a text is not a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpressionError {
    /// Where, in characters from the beginning, from 1.
    pub column: usize,
    /// What was found, or is missing, there.
    pub message: String,
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.message)
    }
}

impl ExpressionError {
    pub(super) fn new(column: usize, message: impl Into<String>) -> Self {
        Self {
            column,
            message: message.into(),
        }
    }
}

/// A part of a condition, and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) column: usize,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    Text(Box<str>),
    List(Vec<Node>),
    Variable(Variable),
    /// `a.b`; after checking never of `request`.
    Select(Box<Node>, Box<str>),
    /// `a["b"]`, `a[0]`
    Index(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    Binary(Operator, Box<Node>, Box<Node>),
    /// `a ? b : c`
    Choose(Box<Node>, Box<Node>, Box<Node>),
    /// `has(a.b)`: the object and the field.
    Has(Box<Node>, Box<str>),
    /// `size(a)`, `a.size()`
    Size(Box<Node>),
    /// `a.lowerAscii()`
    LowerAscii(Box<Node>),
    /// `a.startsWith(b)` and the like.
    Test(TextTest, Box<Node>, Box<Node>),
}

/// What a condition can look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variable {
    Body,
    QueryLength,
    RequiresBrowser,
    Method,
    Path,
    Headers,
    RequestSize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

impl Operator {
    /// As it is written, and how tightly it binds.
    pub(super) const ALL: &[(&'static str, Self, u8)] = &[
        ("||", Self::Or, 1),
        ("&&", Self::And, 2),
        ("==", Self::Equal, 3),
        ("!=", Self::NotEqual, 3),
        ("<", Self::Less, 3),
        ("<=", Self::LessOrEqual, 3),
        (">", Self::Greater, 3),
        (">=", Self::GreaterOrEqual, 3),
        ("in", Self::In, 3),
        ("+", Self::Add, 4),
        ("-", Self::Subtract, 4),
        ("*", Self::Multiply, 5),
        ("/", Self::Divide, 5),
        ("%", Self::Remainder, 5),
    ];

    /// The sign.
    pub(super) fn sign(self) -> &'static str {
        let row = Self::ALL.iter().find(|(_, operator, _)| *operator == self);
        row.map_or("", |(sign, ..)| sign)
    }
}

impl Node {
    /// The parts of a node.
    pub(super) fn children(&self) -> Vec<&Self> {
        match &self.kind {
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::Variable(_) => Vec::new(),
            Kind::List(items) => items.iter().collect(),
            Kind::Select(of, _) | Kind::Has(of, _) | Kind::Not(of) | Kind::Negate(of) | Kind::Size(of) | Kind::LowerAscii(of) => vec![of],
            Kind::Index(a, b) | Kind::Binary(_, a, b) | Kind::Test(_, a, b) => vec![a, b],
            Kind::Choose(a, b, c) => vec![a, b, c],
        }
    }
}
