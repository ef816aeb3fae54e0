//! Types, as far as they are known before a request is: what can never be computed is refused with the configuration.

use super::syntax::{ExpressionError, Kind, Node, Operator, Variable};

/// What is known of a value's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    /// Something of the body: any type.
    Any,
    Null,
    Bool,
    Number,
    Text,
    List,
    /// Fields by name: the body.
    Map,
    /// Texts by name.
    Headers,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Any => "a value",
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::List => "a list",
            Self::Map => "an object",
            Self::Headers => "the headers",
        }
    }

    fn may_be(self, other: Self) -> bool {
        self == other || self == Self::Any || other == Self::Any
    }
}

/// Checks a condition: it has to be a boolean.
pub(super) fn check(node: &Node) -> Result<(), ExpressionError> {
    want(node, Type::Bool, "the condition")
}

fn want(node: &Node, wanted: Type, what: &str) -> Result<(), ExpressionError> {
    let found = type_of(node)?;
    if found.may_be(wanted) {
        return Ok(());
    }
    let message = format!("{} is {}, not {}", what, found.name(), wanted.name());
    Err(ExpressionError::new(node.column, message))
}

fn one_of(node: &Node, wanted: &[Type], message: &str) -> Result<Type, ExpressionError> {
    let found = type_of(node)?;
    if found == Type::Any || wanted.contains(&found) {
        return Ok(found);
    }
    Err(ExpressionError::new(node.column, format!("{message}, not {}", found.name())))
}

fn type_of(node: &Node) -> Result<Type, ExpressionError> {
    match &node.kind {
        Kind::Null => Ok(Type::Null),
        Kind::Bool(_) => Ok(Type::Bool),
        Kind::Number(_) => Ok(Type::Number),
        Kind::Text(_) => Ok(Type::Text),
        Kind::Variable(variable) => Ok(match variable {
            Variable::Body => Type::Map,
            Variable::QueryLength | Variable::RequestSize => Type::Number,
            Variable::RequiresBrowser => Type::Bool,
            Variable::Method | Variable::Path => Type::Text,
            Variable::Headers => Type::Headers,
        }),
        Kind::List(items) => {
            for item in items {
                type_of(item)?;
            }
            Ok(Type::List)
        }
        Kind::Select(of, _) => selected(of),
        Kind::Has(of, _) => selected(of).map(|_| Type::Bool),
        Kind::Index(of, index) => match one_of(of, &[Type::List, Type::Map, Type::Headers], "only lists and objects have items")? {
            Type::List => want(index, Type::Number, "the index of a list").map(|()| Type::Any),
            Type::Map => want(index, Type::Text, "the name of a field").map(|()| Type::Any),
            Type::Headers => want(index, Type::Text, "the name of a header").map(|()| Type::Text),
            _ => one_of(index, &[Type::Number, Type::Text], "an index is a number or a text").map(|_| Type::Any),
        },
        Kind::Not(of) => want(of, Type::Bool, "what ! negates").map(|()| Type::Bool),
        Kind::Negate(of) => want(of, Type::Number, "what - negates").map(|()| Type::Number),
        Kind::Size(of) => {
            one_of(of, &[Type::Text, Type::List, Type::Map], "texts, lists and objects have a size")?;
            Ok(Type::Number)
        }
        Kind::LowerAscii(of) => want(of, Type::Text, "what lowerAscii() takes").map(|()| Type::Text),
        Kind::Test(_, of, argument) => {
            want(of, Type::Text, "what is searched")?;
            want(argument, Type::Text, "what is searched for").map(|()| Type::Bool)
        }
        Kind::Choose(condition, first, second) => {
            want(condition, Type::Bool, "what stands before ?")?;
            let (first, other) = (type_of(first)?, type_of(second)?);
            if !first.may_be(other) {
                let message = format!("{} here and {} before :", other.name(), first.name());
                return Err(ExpressionError::new(second.column, message));
            }
            Ok(if first == other { first } else { Type::Any })
        }
        Kind::Binary(operator, left, right) => binary(*operator, left, right),
    }
}

fn selected(of: &Node) -> Result<Type, ExpressionError> {
    let found = one_of(of, &[Type::Map, Type::Headers], "only objects have fields")?;
    Ok(if found == Type::Headers { Type::Text } else { Type::Any })
}

fn binary(operator: Operator, left: &Node, right: &Node) -> Result<Type, ExpressionError> {
    let side = format!("what {} takes", operator.sign());
    match operator {
        Operator::Or | Operator::And => {
            want(left, Type::Bool, &side)?;
            want(right, Type::Bool, &side)?;
            Ok(Type::Bool)
        }
        Operator::Equal | Operator::NotEqual => {
            let (a, b) = (type_of(left)?, type_of(right)?);
            let comparable = a.may_be(b) && a != Type::Headers && b != Type::Headers;
            if !comparable {
                let message = format!("{} cannot be compared with {}", b.name(), a.name());
                return Err(ExpressionError::new(right.column, message));
            }
            Ok(Type::Bool)
        }
        Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
            const MESSAGE: &str = "numbers and texts have an order";
            let a = one_of(left, &[Type::Number, Type::Text], MESSAGE)?;
            let b = one_of(right, &[Type::Number, Type::Text], MESSAGE)?;
            if !a.may_be(b) {
                let message = format!("{} cannot be compared with {}", b.name(), a.name());
                return Err(ExpressionError::new(right.column, message));
            }
            Ok(Type::Bool)
        }
        Operator::In => {
            let of = one_of(right, &[Type::List, Type::Map, Type::Headers], "in looks into lists and objects")?;
            if matches!(of, Type::Map | Type::Headers) {
                want(left, Type::Text, "a name")?;
            } else {
                type_of(left)?;
            }
            Ok(Type::Bool)
        }
        Operator::Add | Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Remainder => {
            want(left, Type::Number, &side)?;
            want(right, Type::Number, &side)?;
            Ok(Type::Number)
        }
    }
}
