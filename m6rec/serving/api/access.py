"""Which role a route needs: declared beside it, checked before it, and told in the contract."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer, SecurityScopes
from starlette.exceptions import HTTPException

from m6rec.serving.settings import ApiKey, Role

BEARER = HTTPBearer(auto_error=False)  # the gate has refused other keys already; this is for the contract


def needs(role: Role) -> Any:
    """A dependency of a route that takes keys of this role and of those above it."""
    return Security(_check, scopes=[role])


async def _check(request: Request, needed: SecurityScopes, _: Annotated[Any, Depends(BEARER)]) -> None:
    """Raises HTTPException where the key is of a lesser role."""
    key: ApiKey = request.scope["api_key"]
    for role in needed.scopes:
        if not key.allows(role):  # type: ignore[arg-type]
            raise HTTPException(
                403,
                f"this needs an API key with the role {role!r}, and yours has {key.role!r}; "
                f"make one with `m6rec key FILE --role {role}`",
            )
