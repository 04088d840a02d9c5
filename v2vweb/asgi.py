"""Entry of every connection: pages to Django, uploads and websockets beside it."""

import os
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import django

# WhiteNoise hands files over as they are read; they are small, and read once.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "v2vweb.settings")
django.setup(set_prefix=False)  # loads the apps the imports below need

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402

from conversions.routing import websocket_urlpatterns  # noqa: E402
from inventory.bodies import Handler, LimitedBodies  # noqa: E402
from inventory.incoming import form_at, kind_at  # noqa: E402
from inventory.tus import TusApp  # noqa: E402
from v2vweb.start import require_secret_key  # noqa: E402

require_secret_key()

uploads = AuthMiddlewareStack(TusApp())
pages = LimitedBodies(Handler())
forms = AuthMiddlewareStack(pages)


async def http(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[Any]],
    send: Callable[[Any], Awaitable[None]],
) -> None:
    """Send uploads past Django, which would store every body twice; look who sends the others."""
    path = scope["path"]
    application = uploads if kind_at(path) else forms if form_at(path) else pages
    await application(scope, receive, send)


application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(URLRouter(websocket_urlpatterns))
        ),
    }
)
