//! What a condition is for one request. Total: each part is computed at most once, and what cannot be is [`Undecided`].

use core::cmp::Ordering;
use std::borrow::Cow;

use super::number::Number;
use super::scope::Scope;
use super::syntax::{Kind, Node, Operator, TextTest, Variable};
use crate::json::Json;

/// The value cannot be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Undecided;

/// A value of a condition.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    /// A list that the condition writes.
    Items(Vec<Value<'a>>),
    /// A list or an object of the body.
    Json(&'a Json<'a>),
    /// An object without fields: the body where there is none.
    Nothing,
    Headers,
}

type Evaluated<'a> = Result<Value<'a>, Undecided>;

impl<'a> Value<'a> {
    fn of(json: &'a Json<'a>) -> Evaluated<'a> {
        Ok(match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Unsigned(number) => Self::Number(Number::whole(*number)),
            Json::Negative(number) => Self::Number(Number::parse(&number.to_string()).ok_or(Undecided)?),
            Json::Double(number) => Self::Number(Number::from_double(*number).ok_or(Undecided)?),
            Json::Text(text) => Self::Text(Cow::Borrowed(text)),
            Json::List(_) | Json::Object(_) => Self::Json(json),
        })
    }
}

/// Computes a value.
pub(super) fn evaluate<'a>(node: &'a Node, scope: &'a Scope<'a>) -> Evaluated<'a> {
    Ok(match &node.kind {
        Kind::Null => Value::Null,
        Kind::Bool(value) => Value::Bool(*value),
        Kind::Number(number) => Value::Number(*number),
        Kind::Text(text) => Value::Text(Cow::Borrowed(text)),
        Kind::List(items) => Value::Items(items.iter().map(|item| evaluate(item, scope)).collect::<Result<_, _>>()?),
        Kind::Variable(variable) => self::variable(*variable, scope)?,
        Kind::Select(of, name) => field(evaluate(of, scope)?, name, scope)?.ok_or(Undecided)?,
        Kind::Has(of, name) => Value::Bool(field(evaluate(of, scope)?, name, scope)?.is_some()),
        Kind::Index(of, index) => self::index(evaluate(of, scope)?, &evaluate(index, scope)?, scope)?,
        Kind::Not(of) => Value::Bool(!boolean(of, scope)?),
        Kind::Negate(of) => Value::Number(number(of, scope)?.negate().ok_or(Undecided)?),
        Kind::Size(of) => Value::Number(size(&evaluate(of, scope)?)?),
        Kind::LowerAscii(of) => Value::Text(text(of, scope)?.to_ascii_lowercase().into()),
        Kind::Test(test, of, argument) => {
            let (text, argument) = (text(of, scope)?, text(argument, scope)?);
            Value::Bool(match test {
                TextTest::StartsWith => text.starts_with(&*argument),
                TextTest::EndsWith => text.ends_with(&*argument),
                TextTest::Contains => text.contains(&*argument),
            })
        }
        Kind::Choose(condition, first, second) => evaluate(if boolean(condition, scope)? { first } else { second }, scope)?,
        Kind::Binary(operator, left, right) => binary(*operator, left, right, scope)?,
    })
}

/// Computes a condition.
pub(super) fn boolean<'a>(node: &'a Node, scope: &'a Scope<'a>) -> Result<bool, Undecided> {
    match evaluate(node, scope)? {
        Value::Bool(value) => Ok(value),
        _ => Err(Undecided),
    }
}

fn number<'a>(node: &'a Node, scope: &'a Scope<'a>) -> Result<Number, Undecided> {
    match evaluate(node, scope)? {
        Value::Number(number) => Ok(number),
        _ => Err(Undecided),
    }
}

fn text<'a>(node: &'a Node, scope: &'a Scope<'a>) -> Result<Cow<'a, str>, Undecided> {
    match evaluate(node, scope)? {
        Value::Text(text) => Ok(text),
        _ => Err(Undecided),
    }
}

fn variable<'a>(variable: Variable, scope: &'a Scope<'a>) -> Evaluated<'a> {
    Ok(match variable {
        Variable::Body => scope.body.map_or(Value::Nothing, Value::Json),
        Variable::QueryLength => Value::Number(Number::whole(scope.query_length())),
        Variable::RequiresBrowser => Value::Bool(scope.requires_browser().ok_or(Undecided)?),
        Variable::Method => Value::Text(String::from_utf8_lossy(scope.method)),
        Variable::Path => Value::Text(scope.normal_path().into()),
        Variable::Headers => Value::Headers,
        Variable::RequestSize => Value::Number(Number::whole(scope.size)),
    })
}

/// A field, if the object has it; undecided if it is no object.
fn field<'a>(of: Value<'a>, name: &str, scope: &'a Scope<'a>) -> Result<Option<Value<'a>>, Undecided> {
    match of {
        Value::Json(json @ Json::Object(_)) => json.get(name).map(Value::of).transpose(),
        Value::Nothing => Ok(None),
        Value::Headers => Ok(scope.header(name).map(|value| Value::Text(value.into()))),
        _ => Err(Undecided),
    }
}

fn index<'a>(of: Value<'a>, index: &Value<'a>, scope: &'a Scope<'a>) -> Evaluated<'a> {
    match (of, index) {
        (Value::Json(Json::List(items)), Value::Number(number)) => {
            let item = number.index().and_then(|index| items.get(index));
            Value::of(item.ok_or(Undecided)?)
        }
        (Value::Items(items), Value::Number(number)) => number.index().and_then(|index| items.into_iter().nth(index)).ok_or(Undecided),
        (of, Value::Text(name)) => field(of, name, scope)?.ok_or(Undecided),
        _ => Err(Undecided),
    }
}

fn size(of: &Value<'_>) -> Result<Number, Undecided> {
    let size = match of {
        Value::Text(text) => text.chars().count(),
        Value::Items(items) => items.len(),
        Value::Json(Json::List(items)) => items.len(),
        Value::Json(Json::Object(fields)) => fields.len(),
        Value::Nothing => 0,
        _ => return Err(Undecided),
    };
    u64::try_from(size).map(Number::whole).map_err(|_| Undecided)
}

fn binary<'a>(operator: Operator, left: &'a Node, right: &'a Node, scope: &'a Scope<'a>) -> Evaluated<'a> {
    let compute = |compute: fn(Number, Number) -> Option<Number>| {
        let result = compute(number(left, scope)?, number(right, scope)?);
        result.map(Value::Number).ok_or(Undecided)
    };
    let compare = |fits: fn(Ordering) -> bool| {
        let order = match (evaluate(left, scope)?, evaluate(right, scope)?) {
            (Value::Number(a), Value::Number(b)) => a.compare(b).ok_or(Undecided)?,
            (Value::Text(a), Value::Text(b)) => a.cmp(&b),
            _ => return Err(Undecided),
        };
        Ok(Value::Bool(fits(order)))
    };
    match operator {
        // As in CEL, whichever side decides does, though the other one cannot be computed.
        Operator::Or => either(left, right, true, scope),
        Operator::And => either(left, right, false, scope),
        Operator::Equal => Ok(Value::Bool(equal(&evaluate(left, scope)?, &evaluate(right, scope)?))),
        Operator::NotEqual => Ok(Value::Bool(!equal(&evaluate(left, scope)?, &evaluate(right, scope)?))),
        Operator::Less => compare(Ordering::is_lt),
        Operator::LessOrEqual => compare(Ordering::is_le),
        Operator::Greater => compare(Ordering::is_gt),
        Operator::GreaterOrEqual => compare(Ordering::is_ge),
        Operator::In => {
            let item = evaluate(left, scope)?;
            let found = match (evaluate(right, scope)?, &item) {
                (Value::Items(items), item) => items.iter().any(|other| equal(other, item)),
                (Value::Json(Json::List(items)), item) => items
                    .iter()
                    .filter_map(|other| Value::of(other).ok())
                    .any(|other| equal(&other, item)),
                (of, Value::Text(name)) => field(of, name, scope)?.is_some(),
                _ => return Err(Undecided),
            };
            Ok(Value::Bool(found))
        }
        Operator::Add => compute(Number::add),
        Operator::Subtract => compute(Number::subtract),
        Operator::Multiply => compute(Number::multiply),
        Operator::Divide => compute(Number::divide),
        Operator::Remainder => compute(Number::remainder),
    }
}

fn either<'a>(left: &'a Node, right: &'a Node, decides: bool, scope: &'a Scope<'a>) -> Evaluated<'a> {
    let first = boolean(left, scope);
    if first == Ok(decides) {
        return Ok(Value::Bool(decides));
    }
    let second = boolean(right, scope);
    if second == Ok(decides) {
        return Ok(Value::Bool(decides));
    }
    first.and(second).map(|_| Value::Bool(!decides))
}

/// Values of different types are different.
fn equal(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) | (Value::Nothing, Value::Nothing) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Number(a), Value::Number(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => a == b,
        (Value::Items(a), Value::Items(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Json(a), Value::Json(b)) => a == b,
        (Value::Items(items), Value::Json(Json::List(list))) | (Value::Json(Json::List(list)), Value::Items(items)) => {
            let pairs = || items.iter().zip(list.iter());
            items.len() == list.len() && pairs().all(|(a, b)| Value::of(b).is_ok_and(|b| equal(a, &b)))
        }
        _ => false,
    }
}
