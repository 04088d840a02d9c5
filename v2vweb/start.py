"""What a part of the console needs before it starts."""

from django.conf import settings


def require_secret_key() -> None:
    """End this process when nobody has given it a key: the one in its place is in the source.

    With that anybody could sign a session, and passwords would be sealed with what all know.
    """
    if settings.SECRET_KEY == settings.FALLBACK_SECRET_KEY:
        raise SystemExit(
            f"v2vweb does not start without a SECRET_KEY: {settings.VAR_DIR / 'env'} is missing, "
            "or this user cannot read it. Run script/setup as the user who runs the console, or "
            "set SECRET_KEY to that of the other parts."
        )
