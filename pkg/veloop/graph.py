"""Still asyncio's."""

__all__: tuple[str, ...] = ()
