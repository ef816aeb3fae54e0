//! What the reader does with a complete body: finds the route, and reads as much as its price asks for.

use super::expression::Scope;
use super::flow::Flow;
use super::path::normalise;
use super::route::{Price, Route};
use super::routes::Routes;
use super::select::{RequestFacts, Selection};
use crate::reader::{self, BodyFacts, Facts, Rewrite, Why, read_body};
use crate::sorting;

/// A body's facts, and what has to be changed in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// For the gate.
    pub facts: BodyFacts,
    /// For the body that goes on, if the route is priced by tokens; [`Reading::rewritten`] carries it out.
    pub rewrite: Rewrite,
    /// The same for a payment at the former price, or of an amount that cannot be told: the smaller limit of both, so that neither
    /// quote can be exceeded.
    pub former_rewrite: Rewrite,
}

impl Reading {
    /// The body that goes to the backend in place of the one that was read; `None`: that one, as it is.
    pub fn rewritten(&self, body: &[u8]) -> Option<Vec<u8>> {
        match &self.facts {
            BodyFacts::Json(facts) => reader::rewrite(body, facts.tokens.as_ref()?.api, &self.rewrite),
            _ => None,
        }
    }
}

impl Routes {
    /// Reads a request's body as sent, for the route that takes the request and for the one that would have taken it before the
    /// configuration was reloaded (`former`), whose prices are still valid for a while.
    ///
    /// `request.body` is not looked at. `counted`: its answer is, whatever the route's flow, for it is paid from a balance. The values of `content-type` and `content-encoding` are those of [`read_body`].
    pub fn read(
        &self,
        former: Option<&Self>,
        request: &RequestFacts<'_>,
        body: &[u8],
        content_type: Option<&[u8]>,
        content_encoding: Option<&[u8]>,
        counted: bool,
    ) -> Reading {
        let mut reading = Reading {
            facts: read_body(body, content_type, content_encoding),
            rewrite: Rewrite::default(),
            former_rewrite: Rewrite::default(),
        };
        let priced = [former, Some(self)].map(|routes| {
            let facts = Some(&reading.facts);
            let route = match routes?.select(&RequestFacts { body: facts, ..*request }) {
                Selection::Priced(index) => routes?.by_index(index),
                _ => None,
            };
            route.filter(|route| route.price.needs_body())
        });
        if let (BodyFacts::Json(facts), true) = (&mut reading.facts, priced.iter().any(Option::is_some)) {
            match read_deeply(priced, request, body, counted, facts) {
                Ok([former, current]) => {
                    reading.rewrite = current;
                    reading.former_rewrite = former.within(&current);
                }
                Err(why) => reading.facts = BodyFacts::Unreadable(why),
            }
        }
        reading
    }
}

/// Reads what the routes' prices ask for; what each of them wants to be changed.
fn read_deeply<const N: usize>(
    routes: [Option<&Route>; N],
    request: &RequestFacts<'_>,
    body: &[u8],
    counted: bool,
    facts: &mut Facts,
) -> Result<[Rewrite; N], Why> {
    let document = reader::read_document(body)?;
    let scope = Scope {
        size: u64::try_from(body.len()).unwrap_or(u64::MAX),
        body: Some(&document),
        ..Scope::without_body(request)
    };
    let mut rewrites = [Rewrite::default(); N];
    for (route, rewrite) in routes.iter().zip(&mut rewrites) {
        let Some(route) = route else { continue };
        match &route.price {
            Price::PerToken(price) => {
                let api = reader::api_of(&normalise(request.place.path).path, &document);
                let tokens = reader::read_tokens(api, &document)?;
                *rewrite = price.rewrite(&tokens);
                // Where nothing is metered no answer has to tell its usage.
                rewrite.include_usage &= counted || matches!(route.flow, Flow::Metered(_));
                facts.tokens = Some(tokens);
            }
            Price::Dynamic(price) => facts.outcomes.extend(price.outcomes(&scope)),
            Price::Free | Price::PerRequest | Price::PerMinute(_) => {}
        }
    }
    sorting::sort(&mut facts.outcomes, |(one, _), (other, _)| one < other);
    facts.outcomes.dedup();
    Ok(rewrites)
}
