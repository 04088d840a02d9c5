"""Servers on loopback that speak ssh as a test wants it, up to nonsense."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh

from inventory.sources.ssh import SshHost

PASSWORD = "s3cret"


class _Server(asyncssh.SSHServer):
    """Lets in whoever has the password."""

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == ("root", PASSWORD)


@contextmanager
def ssh_server(folder: Path, **options: Any) -> Iterator[SshHost]:
    """Run a server of asyncssh with those options; its key is in a file of the folder."""
    key = asyncssh.generate_private_key("ssh-ed25519")

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1", 0, server_factory=_Server, server_host_keys=[key], **options
        )

    with _served(listen) as server:
        port = server.get_port()
        known = folder / "known"
        known.write_text(f"[127.0.0.1]:{port} {key.export_public_key().decode()}")
        yield SshHost(
            host="127.0.0.1", port=port, user="root", password=PASSWORD, known_hosts=str(known)
        )


@contextmanager
def tcp_server(said: bytes, *, then_ends: bool) -> Iterator[SshHost]:
    """Run a server that says that to everybody."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        if not then_ends:
            await reader.read()
        writer.close()

    with _served(lambda: asyncio.start_server(talk, "127.0.0.1", 0)) as server:
        yield SshHost(host="127.0.0.1", port=server.sockets[0].getsockname()[1], user="root")


@contextmanager
def _served(listen: Callable[[], Awaitable[Any]]) -> Iterator[Any]:
    """Run a server in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        server = asyncio.run_coroutine_threadsafe(_started(listen), loop).result(20)
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(_ended(server))
        loop.close()


async def _started(listen: Callable[[], Awaitable[Any]]) -> Any:
    return await listen()


async def _ended(server: Any) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
