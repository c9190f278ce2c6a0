//! The name of the backend in the extensions of a response.

use ::tower::BoxError;
use http::Response;

use crate::backend::{BackendId, Outcome};
use crate::tower::balance::Balance;
use crate::tower::completion::Completion;
use crate::tower::in_flight::InFlight;

/// The name of the backend that served a request, in the
/// [extensions](http::Response::extensions) of its response.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ServedBy(pub BackendId);

/// A [`Completion`] that puts [`ServedBy`] into the extensions of each response; made by
/// [`Balance::name_responses`].
#[derive(Clone, Copy, Debug, Default)]
pub struct NamedResponses<C>(C);

impl<S, K, C, R> Balance<S, K, C, R> {
    /// Puts the name of the backend into the extensions of each response, as [`ServedBy`], for a log
    /// line or a cookie that [pins](crate::tower::PinnedKey) the next request. Call it after
    /// [`classify`](Self::classify) and [`until_body_end`](Balance::until_body_end). It costs an
    /// allocation for each response without extensions.
    ///
    /// # Examples
    /// ```
    /// use http::{Request, Response};
    /// use lvs::scheduler::RoundRobin;
    /// use lvs::tower::{Balance, CookieKey, PinnedKey, ServedBy};
    /// use lvs::{BackendSet, Balancer, Spec};
    /// use tower::{BoxError, ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let set = BackendSet::new();
    /// for name in ["a", "b"] {
    ///     let instance = service_fn(async |_: Request<()>| Ok::<_, BoxError>(Response::new(())));
    ///     set.insert(Spec::new(name, instance))?;
    /// }
    /// let cookie = CookieKey::new("server");
    /// let key = PinnedKey::new(move |request: &Request<()>| {
    ///     Some(str::from_utf8(cookie.value(request)?).ok()?.into())
    /// });
    /// let service = Balance::new(Balancer::new(&set, RoundRobin::new())?).key(key).name_responses();
    ///
    /// let first = service.clone().oneshot(Request::new(())).await?;
    /// let ServedBy(server) = first.extensions().get().expect("a named response");
    /// for _ in 0..3 {
    ///     let request = Request::builder().header("cookie", format!("server={server}")).body(())?;
    ///     let next = service.clone().oneshot(request).await?;
    ///     assert_eq!(next.extensions().get(), Some(&ServedBy(server.clone())));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn name_responses(self) -> Balance<S, K, NamedResponses<C>, R>
    where
        C: Clone,
    {
        let completion = NamedResponses(self.completion_ref().clone());
        self.completion(completion)
    }
}

impl<S, C, Res, B> Completion<S, Res> for NamedResponses<C>
where
    C: Completion<S, Res, Response = Response<B>>,
{
    type Response = Response<B>;

    fn outcome(&self, result: Result<&Res, &BoxError>) -> Outcome {
        self.0.outcome(result)
    }

    fn complete(
        self,
        result: Result<Res, BoxError>,
        outcome: Outcome,
        in_flight: InFlight<S>,
    ) -> Result<Response<B>, BoxError> {
        let served_by = in_flight.id().cloned().map(ServedBy);
        let mut response = self.0.complete(result, outcome, in_flight)?;
        if let Some(served_by) = served_by {
            response.extensions_mut().insert(served_by);
        }
        Ok(response)
    }
}
