//! The pipeline as a type: each stage takes what the one before it gives, or it does not compile.

use std::marker::PhantomData;

use landfall_events::{Landed, Never};

use crate::stage::Stage;

/// The name of a stage.
pub type StageName = &'static str;

/// A chain of stages that starts at S3's notifications and whose last link gives `Output`.
///
/// ```
/// # use landfall_shared::{Chain, Outcome, Stage, Failure, Class};
/// # use landfall_events::*;
/// # macro_rules! stage { ($name:ident, $input:ty, $output:ty) => {
/// # struct $name;
/// # impl Stage for $name {
/// #   type Input = $input; type Output = $output; type Error = Nothing; const NAME: &'static str = stringify!($name);
/// #   async fn handle(&self, _: &[Envelope<$input>], _: jiff::Timestamp) -> Vec<Result<Outcome<Self>, Nothing>> { vec![] }
/// # } } }
/// # #[derive(Debug, thiserror::Error)] #[error("nothing")] struct Nothing;
/// # impl Failure for Nothing { fn class(&self) -> Class { Class::Permanent } fn refusal(&self) -> Refusal { unreachable!() } }
/// # stage!(Validate, Landed, Validated); stage!(Route, Validated, Routed); stage!(Load, Routed, Report); stage!(Notify, Report, Never);
/// let chain = Chain::start().then::<Validate>().then::<Route>().then::<Load>().end::<Notify>();
/// assert_eq!(chain, ["Validate", "Route", "Load", "Notify"]);
/// ```
///
/// The same chain without `route` is no chain:
///
/// ```compile_fail,E0271
/// # use landfall_shared::{Chain, Outcome, Stage, Failure, Class};
/// # use landfall_events::*;
/// # macro_rules! stage { ($name:ident, $input:ty, $output:ty) => {
/// # struct $name;
/// # impl Stage for $name {
/// #   type Input = $input; type Output = $output; type Error = Nothing; const NAME: &'static str = stringify!($name);
/// #   async fn handle(&self, _: &[Envelope<$input>], _: jiff::Timestamp) -> Vec<Result<Outcome<Self>, Nothing>> { vec![] }
/// # } } }
/// # #[derive(Debug, thiserror::Error)] #[error("nothing")] struct Nothing;
/// # impl Failure for Nothing { fn class(&self) -> Class { Class::Permanent } fn refusal(&self) -> Refusal { unreachable!() } }
/// # stage!(Validate, Landed, Validated); stage!(Route, Validated, Routed); stage!(Load, Routed, Report); stage!(Notify, Report, Never);
/// let chain = Chain::start().then::<Validate>().then::<Load>().end::<Notify>();
/// assert_eq!(chain, ["Validate", "Load", "Notify"]);
/// ```
#[derive(Debug)]
pub struct Chain<Output> {
    names: Vec<StageName>,
    output: PhantomData<Output>,
}

impl Chain<Landed> {
    /// Starts at what S3 says.
    #[must_use]
    pub fn start() -> Self {
        Self { names: Vec::new(), output: PhantomData }
    }
}

impl<Output> Chain<Output> {
    /// Adds a stage that takes what the chain gives so far.
    #[must_use]
    pub fn then<S: Stage<Input = Output>>(mut self) -> Chain<S::Output> {
        self.names.push(S::NAME);
        Chain { names: self.names, output: PhantomData }
    }

    /// Adds the last stage, after which nothing follows, and gives the names in order.
    #[must_use]
    pub fn end<S: Stage<Input = Output, Output = Never>>(self) -> Vec<StageName> {
        self.then::<S>().names
    }
}
