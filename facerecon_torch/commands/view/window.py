"""The window of the viewer (extra `viewer`): a server on this machine, which a browser shows."""

import socket
from typing import Any

from facerecon_torch.errors import MissingExtraError

__all__ = ["PER_MM", "Window", "viser_package"]

PER_MM = 0.01
"""Length of a mm in the scene."""
_PORTS = 65535


def viser_package() -> Any:
    """The package viser. Raises MissingExtraError where it is not installed."""
    try:
        import viser
    except ImportError:
        raise MissingExtraError("viewers", "viser", "viewer") from None
    return viser


def _require_address(host: str) -> None:
    """Raise ValueError unless this machine can listen on `host`: viser would wait for ever."""
    try:
        family = socket.getaddrinfo(host, None)[0][0]
        socket.create_server((host, 0), family=family).close()
    except (OSError, UnicodeError) as error:
        raise ValueError(f"host must be an address of this machine; got {host!r}: {error}") from None


class Window:
    """A server on this machine with an upright, lit scene of about the size of a face.

    Args:
        title: of the page.
        host: address to listen on.
        port: to listen on; where it is taken, the next free one.

    Raises:
        MissingExtraError: viser is not installed.
        ValueError: an address that is not this machine's, or a port outside 1 to 65535.
    """

    def __init__(self, title: str, *, host: str, port: int) -> None:
        _require_address(host)
        if not 1 <= port <= _PORTS:
            raise ValueError(f"port must lie in 1 to {_PORTS}; got {port}")
        self.server = viser_package().ViserServer(host=host, port=port, label=title, verbose=False)
        self.server.scene.set_up_direction("+y")
        self.server.gui.configure_theme(show_logo=False, show_share_button=False)
        self.server.initial_camera.position = (0.0, 0.0, 3.6)
        self.server.initial_camera.look_at = (0.0, 0.0, 0.0)

    @property
    def address(self) -> str:
        """Where a browser finds the viewer."""
        return f"http://{self.server.get_host()}:{self.server.get_port()}"

    def stop(self) -> None:
        """End the server."""
        self.server.stop()
