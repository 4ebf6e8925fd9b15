"""The types of msgpack's public interface, which ships none."""

from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol, Self, TypeAlias

from typing_extensions import Buffer, disjoint_base

from .exceptions import *
from .ext import ExtType as ExtType
from .ext import Timestamp as Timestamp

class _Source(Protocol):
    def read(self, n: int, /) -> Buffer: ...

class _Target(Protocol):
    def write(self, data: bytes, /) -> object: ...

_Hook: TypeAlias = Callable[[Any], Any] | None
# 0 Timestamp, 1 float, 2 int of nanoseconds, 3 datetime
_TimestampMode: TypeAlias = Literal[0, 1, 2, 3]

version: tuple[int, int, int]
__version__: str

@disjoint_base
class Packer:
    def __init__(
        self,
        default: _Hook = None,
        *,
        use_single_float: bool = False,
        autoreset: bool = True,
        use_bin_type: bool = True,
        strict_types: bool = False,
        datetime: bool = False,
        unicode_errors: str | None = None,
        buf_size: int = 0x40000,
    ) -> None: ...
    # All of these return None under autoreset=False; bytes is the case that is used.
    def pack(self, obj: Any) -> bytes: ...
    def pack_array_header(self, size: int) -> bytes: ...
    def pack_map_header(self, size: int) -> bytes: ...
    def pack_map_pairs(self, pairs: Iterable[tuple[Any, Any]]) -> bytes: ...
    def pack_ext_type(self, typecode: int, data: bytes) -> bytes: ...
    def bytes(self) -> bytes: ...
    def reset(self) -> None: ...
    def getbuffer(self) -> memoryview: ...

@disjoint_base
class Unpacker:
    def __init__(
        self,
        file_like: _Source | None = None,
        *,
        read_size: int = 0,
        use_list: bool = True,
        raw: bool = False,
        timestamp: _TimestampMode = 0,
        strict_map_key: bool = True,
        object_hook: _Hook = None,
        object_pairs_hook: _Hook = None,
        list_hook: _Hook = None,
        unicode_errors: str | None = None,
        max_buffer_size: int = 104857600,
        ext_hook: Callable[[int, bytes], Any] = ...,
        max_str_len: int = -1,
        max_bin_len: int = -1,
        max_array_len: int = -1,
        max_map_len: int = -1,
        max_ext_len: int = -1,
    ) -> None: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
    def feed(self, next_bytes: Buffer) -> None: ...
    def read_bytes(self, nbytes: int) -> bytes: ...
    def unpack(self) -> Any: ...
    def skip(self) -> None: ...
    def read_array_header(self) -> int: ...
    def read_map_header(self) -> int: ...
    def tell(self) -> int: ...

def packb(
    o: Any,
    *,
    default: _Hook = None,
    use_single_float: bool = False,
    autoreset: bool = True,
    use_bin_type: bool = True,
    strict_types: bool = False,
    datetime: bool = False,
    unicode_errors: str | None = None,
    buf_size: int = 0x40000,
) -> bytes: ...
def pack(
    o: Any,
    stream: _Target,
    *,
    default: _Hook = None,
    use_single_float: bool = False,
    autoreset: bool = True,
    use_bin_type: bool = True,
    strict_types: bool = False,
    datetime: bool = False,
    unicode_errors: str | None = None,
    buf_size: int = 0x40000,
) -> None: ...
def unpackb(
    packed: Buffer,
    *,
    object_hook: _Hook = None,
    list_hook: _Hook = None,
    use_list: bool = True,
    raw: bool = False,
    timestamp: _TimestampMode = 0,
    strict_map_key: bool = True,
    unicode_errors: str | None = None,
    object_pairs_hook: _Hook = None,
    ext_hook: Callable[[int, bytes], Any] = ...,
    max_str_len: int = -1,
    max_bin_len: int = -1,
    max_array_len: int = -1,
    max_map_len: int = -1,
    max_ext_len: int = -1,
) -> Any: ...
def unpack(
    stream: _Source,
    *,
    object_hook: _Hook = None,
    list_hook: _Hook = None,
    use_list: bool = True,
    raw: bool = False,
    timestamp: _TimestampMode = 0,
    strict_map_key: bool = True,
    unicode_errors: str | None = None,
    object_pairs_hook: _Hook = None,
    ext_hook: Callable[[int, bytes], Any] = ...,
    max_str_len: int = -1,
    max_bin_len: int = -1,
    max_array_len: int = -1,
    max_map_len: int = -1,
    max_ext_len: int = -1,
) -> Any: ...

load = unpack
loads = unpackb
dump = pack
dumps = packb
