"""Signing in again, where a page goes on asking by itself after its session has ended."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import resolve_url
from django_htmx.http import HttpResponseClientRedirect


class SignInMiddleware(LoginRequiredMiddleware):
    """Django's, which for htmx leads the whole page to the sign-in, and back to that page.

    A redirect would put the sign-in page into the place of the fragment that was asked for, and
    lead from there to the fragment alone.
    """

    # The stubs want the one kind of redirect that Django has.
    def handle_no_permission(  # type: ignore[override]
        self, request: HttpRequest, view_func: Any
    ) -> HttpResponseBase:
        """Answer somebody who is not signed in."""
        htmx: Any = getattr(request, "htmx", None)
        if not htmx:
            return super().handle_no_permission(request, view_func)
        page = htmx.current_url_abs_path or resolve_url(settings.LOGIN_REDIRECT_URL)
        field = self.get_redirect_field_name(view_func)
        return HttpResponseClientRedirect(
            redirect_to_login(page, self.get_login_url(view_func), field).url
        )
