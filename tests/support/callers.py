"""What stands for the authenticator where nobody has an account."""

from starlette.datastructures import Headers

from xzepr.auth.authenticate import Callers
from xzepr.auth.principal import Principal


class OnlyAnonymous(Callers):
    """Credentials are not looked at."""

    async def authenticate(self, peer: str | None, headers: Headers, request_id: str | None, _method: str) -> Principal:
        return self.anonymous(peer, headers, request_id)
