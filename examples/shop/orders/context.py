"""What every page shows of the basket."""

from django.http import HttpRequest

from orders.basket import Basket


def basket(request: HttpRequest) -> dict[str, object]:
    """The basket; reading it costs a query only for visitors who have a session."""
    return {"basket": Basket(request.session)}
