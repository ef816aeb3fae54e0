//! From words to a tree: precedence as in CEL, depth and size bounded.

use super::lexer::{Token, TokenKind, lex};
use super::syntax::{ExpressionError, Kind, Node, Operator, TextTest, Variable};

/// Longest condition, in bytes.
const MAX_BYTES: usize = 1024;

/// Deepest nesting of brackets, calls and signs.
const MAX_DEPTH: usize = 32;

/// Most parts; evaluating takes each at most once.
const MAX_NODES: usize = 256;

const FUNCTIONS: &str = "has(body.x), size(x), x.size(), x.startsWith(y), x.endsWith(y), x.contains(y), x.lowerAscii()";

/// Parses a condition.
pub(super) fn parse(text: &str) -> Result<Node, ExpressionError> {
    if text.len() > MAX_BYTES {
        return Err(ExpressionError::new(1, format!("longer than {MAX_BYTES} bytes")));
    }
    let tokens = lex(text)?;
    let mut parser = Parser {
        tokens: tokens.into_iter().peekable(),
        depth: 0,
        nodes: 0,
    };
    let node = parser.choice()?;
    let end = parser.next();
    match end.kind {
        TokenKind::End => Ok(node),
        other => Err(ExpressionError::new(
            end.column,
            format!("{} where an operator or the end should be", other.shown()),
        )),
    }
}

struct Parser {
    tokens: core::iter::Peekable<std::vec::IntoIter<Token>>,
    depth: usize,
    nodes: usize,
}

type Parsed = Result<Node, ExpressionError>;

impl Parser {
    fn next(&mut self) -> Token {
        self.tokens.next().unwrap_or(Token {
            column: 0,
            kind: TokenKind::End,
        })
    }

    fn column(&mut self) -> usize {
        self.tokens.peek().map_or(0, |token| token.column)
    }

    fn take(&mut self, sign: &str) -> bool {
        self.tokens
            .next_if(|token| matches!(&token.kind, TokenKind::Sign(own) if *own == sign))
            .is_some()
    }

    fn expect(&mut self, sign: &str) -> Result<(), ExpressionError> {
        if self.take(sign) {
            return Ok(());
        }
        let found = self.next();
        Err(ExpressionError::new(
            found.column,
            format!("{} where `{sign}` should be", found.kind.shown()),
        ))
    }

    fn node(&mut self, column: usize, kind: Kind) -> Parsed {
        self.nodes = self.nodes.saturating_add(1);
        if self.nodes > MAX_NODES {
            return Err(ExpressionError::new(column, format!("more than {MAX_NODES} parts")));
        }
        Ok(Node { column, kind })
    }

    fn deeper(&mut self, parse: impl FnOnce(&mut Self) -> Parsed) -> Parsed {
        self.depth = self.depth.saturating_add(1);
        if self.depth > MAX_DEPTH {
            return Err(ExpressionError::new(self.column(), format!("nested deeper than {MAX_DEPTH}")));
        }
        let parsed = parse(self);
        self.depth = self.depth.saturating_sub(1);
        parsed
    }

    /// `a ? b : c`
    fn choice(&mut self) -> Parsed {
        self.deeper(|parser| {
            let condition = parser.binary(1)?;
            if !parser.take("?") {
                return Ok(condition);
            }
            let column = condition.column;
            let first = parser.binary(1)?;
            parser.expect(":")?;
            let second = parser.choice()?;
            parser.node(column, Kind::Choose(condition.into(), first.into(), second.into()))
        })
    }

    /// Operators that bind at least this tightly, from left to right.
    fn binary(&mut self, least: u8) -> Parsed {
        let mut left = self.unary()?;
        loop {
            let operator = self.tokens.peek().and_then(|token| match &token.kind {
                TokenKind::Sign(sign) => operator(sign),
                TokenKind::Name(name) => operator(name).filter(|(operator, _)| *operator == Operator::In),
                _ => None,
            });
            let Some((operator, binds)) = operator.filter(|(_, binds)| *binds >= least) else {
                return Ok(left);
            };
            self.next();
            let right = self.deeper(|parser| parser.binary(binds.saturating_add(1)))?;
            left = self.node(left.column, Kind::Binary(operator, left.into(), right.into()))?;
        }
    }

    fn unary(&mut self) -> Parsed {
        let column = self.column();
        if self.take("!") {
            let of = self.deeper(Self::unary)?;
            return self.node(column, Kind::Not(of.into()));
        }
        if self.take("-") {
            let of = self.deeper(Self::unary)?;
            return self.node(column, Kind::Negate(of.into()));
        }
        self.member()
    }

    /// A value with what is selected of it.
    fn member(&mut self) -> Parsed {
        let mut node = self.primary()?;
        loop {
            let column = node.column;
            if self.take("[") {
                let index = self.choice()?;
                self.expect("]")?;
                node = self.node(column, Kind::Index(node.into(), index.into()))?;
            } else if self.take(".") {
                let (at, name) = self.name("the name of a field")?;
                node = if self.take("(") {
                    self.method(node, at, &name)?
                } else {
                    self.node(column, Kind::Select(node.into(), name))?
                };
            } else {
                return Ok(node);
            }
        }
    }

    fn name(&mut self, wanted: &str) -> Result<(usize, Box<str>), ExpressionError> {
        let token = self.next();
        match token.kind {
            TokenKind::Name(name) => Ok((token.column, name)),
            other => Err(ExpressionError::new(
                token.column,
                format!("{} where {wanted} should be", other.shown()),
            )),
        }
    }

    fn method(&mut self, of: Node, at: usize, name: &str) -> Parsed {
        let column = of.column;
        let test = match name {
            "startsWith" => TextTest::StartsWith,
            "endsWith" => TextTest::EndsWith,
            "contains" => TextTest::Contains,
            "size" | "lowerAscii" => {
                self.expect(")")?;
                let of = of.into();
                return self.node(column, if name == "size" { Kind::Size(of) } else { Kind::LowerAscii(of) });
            }
            _ => {
                return Err(ExpressionError::new(
                    at,
                    format!("no function is called `{name}`: there are {FUNCTIONS}"),
                ));
            }
        };
        let argument = self.choice()?;
        self.expect(")")?;
        self.node(column, Kind::Test(test, of.into(), argument.into()))
    }

    fn primary(&mut self) -> Parsed {
        let Token { column, kind } = self.next();
        match kind {
            TokenKind::Number(number) => self.node(column, Kind::Number(number)),
            TokenKind::Text(text) => self.node(column, Kind::Text(text)),
            TokenKind::Name(name) => self.named(column, &name),
            TokenKind::Sign("(") => {
                let inner = self.choice()?;
                self.expect(")")?;
                Ok(inner)
            }
            TokenKind::Sign("[") => {
                let mut items = Vec::new();
                while !self.take("]") {
                    items.push(self.choice()?);
                    if !self.take(",") {
                        self.expect("]")?;
                        break;
                    }
                }
                self.node(column, Kind::List(items))
            }
            other => Err(ExpressionError::new(column, format!("{} where a value should be", other.shown()))),
        }
    }

    fn named(&mut self, column: usize, name: &str) -> Parsed {
        if self.take("(") {
            return self.function(column, name);
        }
        let kind = match name {
            "true" => Kind::Bool(true),
            "false" => Kind::Bool(false),
            "null" => Kind::Null,
            "body" => Kind::Variable(Variable::Body),
            "query_length" => Kind::Variable(Variable::QueryLength),
            "requires_browser" => Kind::Variable(Variable::RequiresBrowser),
            "request" => return self.request(),
            _ => {
                let known = "body, request, query_length and requires_browser";
                return Err(ExpressionError::new(
                    column,
                    format!("nothing is called `{name}`: there are {known}"),
                ));
            }
        };
        self.node(column, kind)
    }

    /// `request` is not a value of its own, only what is in it is.
    fn request(&mut self) -> Parsed {
        const KNOWN: &str = "request has method, path, headers and size";
        let column = self.column();
        if !self.take(".") {
            return Err(ExpressionError::new(column, KNOWN));
        }
        let (column, field) = self.name("a field of request")?;
        let variable = match &*field {
            "method" => Variable::Method,
            "path" => Variable::Path,
            "headers" => Variable::Headers,
            "size" => Variable::RequestSize,
            _ => return Err(ExpressionError::new(column, format!("no `{field}`: {KNOWN}"))),
        };
        self.node(column, Kind::Variable(variable))
    }

    fn function(&mut self, column: usize, name: &str) -> Parsed {
        if !matches!(name, "has" | "size") {
            return Err(ExpressionError::new(
                column,
                format!("no function is called `{name}`: there are {FUNCTIONS}"),
            ));
        }
        let argument = self.choice()?;
        self.expect(")")?;
        match (name, argument.kind) {
            ("has", Kind::Select(of, field)) => self.node(column, Kind::Has(of, field)),
            ("has", _) => Err(ExpressionError::new(
                argument.column,
                "has() asks for a field, as in has(body.tools)",
            )),
            (_, kind) => {
                let of = Node {
                    column: argument.column,
                    kind,
                };
                self.node(column, Kind::Size(of.into()))
            }
        }
    }
}

fn operator(sign: &str) -> Option<(Operator, u8)> {
    let row = Operator::ALL.iter().find(|(own, ..)| *own == sign);
    row.map(|(_, operator, binds)| (*operator, *binds))
}
