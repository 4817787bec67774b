"""The dispatch table: every node that a worker serves, compiled once, found by index or by name.

An `Entry` is all that is needed to run one node: bytes to params, params to result, result to
bytes. A `DispatchTable` is sealed: it is built once at start, and all workers of one generation
have equal ones, which their digest proves. The broker knows names, kinds and digest (`NodeTable`).

Mirror: tests/worker/test_dispatch.py.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec import Raw

from pronghorn.broker.wire.errors import InvalidArgumentError, NodeError, PronghornError
from pronghorn.broker.wire.table import (
    BUILTIN_PREFIX,
    HOST_LABEL,
    NodeInfo,
    NodeKind,
    NodeTable,
    RetryPolicy,
)
from pronghorn.broker.wire.values import (
    NEVER_LIFTED,
    NO_BUFFERS,
    Buffer,
    NodeDescription,
    encode_inline,
    encode_json,
    encode_value,
)

from .codec import ParamsCodec
from .description import describe
from .failures import node_error, refusal, result_error
from .invoker import compile_invoker
from .node import NodeDefinitionError
from .referred import (
    ReferredCodec,
    ReferredItems,
    Values,
    decode_raws,
    refers,
    refusing_references,
    replaced,
    takes_extensions,
)
from .signature import Signature, read_signature

_NIL: Final = b"\xc0"


class Entry:
    """One node, compiled.

    Attributes:
        index: Its place in the table.
        name: Full name, ``module.function``.
        kind: ``inline``, ``thread`` or ``async``.
        inline: Whether it runs to its end at once in the loop's thread.
        streams: Whether it is a generator, and yields parts.
        function: What the user marked.
        is_plain: Whether it is only a function to be called: inline, without a limit, a label or
            a retry, all of which are for the broker to see to.
        is_ours: Whether its code is Pronghorn's: an error of ours that it raises is its caller's.
        workflow: The definition that it is made of, a `flow.model.Workflow`; `None` for a function.
        takes_context: Whether `invoke` and `invoke_items` want a `Context` as their last argument.
        invoke: ``invoke(params)`` calls the node with decoded params. Gives its result, or for an
            ``async`` node a coroutine, or a generator if it streams. Raises what the node raises.
        invoke_items: ``invoke_items(params, results)`` calls it for each of an iterable of params,
            putting each result into `ItemResults` as it comes, until those are full. Given an
            iterator it can be taken up again after an exception, behind the item that failed. Of no
            use for ``async`` nodes.
    """

    __slots__ = (
        "_codec",
        "_decode_list",
        "_decode_msgpack",
        "_referred",
        "_takes_extensions",
        "function",
        "index",
        "inline",
        "invoke",
        "invoke_items",
        "is_ours",
        "is_plain",
        "kind",
        "name",
        "signature",
        "streams",
        "takes_context",
        "workflow",
    )

    def __init__(self, index: int, signature: Signature) -> None:
        self.index = index
        self.name = signature.name
        self.kind: NodeKind = signature.kind
        self.streams = signature.streams
        self.inline = signature.kind == "inline" and not signature.streams
        self.workflow: Any = None
        self.is_ours = False
        limited = signature.max_concurrency or signature.rate or signature.labels
        self.is_plain = self.inline and not limited and signature.retry is None
        self.function = signature.function
        self.takes_context = signature.takes_context
        self.signature = signature
        self._codec = ParamsCodec(signature)
        self._decode_msgpack = self._codec.decode_msgpack
        self._decode_list = self._codec.decode_list
        self._referred: ReferredCodec | None = None  # made when the first references come
        self._takes_extensions = takes_extensions(signature)
        if self._takes_extensions:
            self._decode_msgpack = refusing_references(self._decode_msgpack)
            self._decode_list = refusing_references(self._decode_list)
        invoker = compile_invoker(signature)
        self.invoke: Callable[..., Any] = invoker.invoke
        self.invoke_items: Callable[..., None] = invoker.invoke_items

    @classmethod
    def of(cls, index: int, name: str, function: Callable[..., Any]) -> "Entry":
        """Compile a marked function under its full name.

        Raises:
            NodeDefinitionError: It can't be served as it is defined.
        """
        signature = read_signature(name, function)
        try:
            return cls(index, signature)
        except Exception as error:  # such as a default that msgspec takes for mutable
            raise NodeDefinitionError(f"node {name} can't be compiled: {error}") from error

    def __repr__(self) -> str:
        return f"<Entry {self.index} {self.name} ({self.kind})>"

    def decode(self, raw: Any) -> Any:
        """Decode params from msgpack: a map, an array, nil, or nothing at all.

        Args:
            raw: Bytes, memoryview or `msgspec.Raw`; parameters of type memoryview are views of it.

        Raises:
            InvalidArgumentError: They don't fit the signature, or are no msgpack; never any other.
        """
        try:  # hot: guarded by `scripts/bench rtt`
            params = self._decode_msgpack(raw)
            return params if params is not None else self._codec.defaults()
        except BaseException as error:  # users' types raise what they like while they are decoded
            if not len(raw):
                return self.decode(_NIL)
            raise refusal(error, self.signature) from error

    def decode_json(self, raw: Any) -> Any:
        """Decode params from JSON: an object, an array, null, or nothing; errors as in `decode`."""
        try:
            params = self._codec.decode_json(raw) if len(raw) else None
            return params if params is not None else self._codec.defaults()
        except BaseException as error:
            raise refusal(error, self.signature) from error

    def decode_with_buffers(self, raw: Any, buffers: Sequence[Buffer]) -> Any:
        """Decode params from msgpack, of which some lie in buffers; errors as in `decode`.

        A parameter that lies in a buffer is a view of it where its type is memoryview or ndarray.
        """
        if not buffers:
            return self.decode(raw)
        try:
            if self._takes_extensions and refers(raw):
                raise msgspec.ValidationError("a reference stands for a value")
            params = self._codec.decode_with_buffers(raw, buffers)
            return params if params is not None else self._codec.defaults()
        except BaseException as error:
            raise refusal(error, self.signature) from error

    def decode_referred(self, raw: Any, buffers: Sequence[Buffer], values: Values) -> Any:
        """Decode params from msgpack in which references may stand for values.

        For when `decode` or `decode_with_buffers` has raised. Errors as there, or a retryable one
        where a value can't be had.
        """
        try:
            if not buffers:
                with suppress(Exception):  # for the words of the usual decoder, if it is not that
                    return self._referred_codec().decode(raw, values)
            whole = replaced(raw, values)
            raw = raw if whole is None else whole
            if buffers:
                params = self._codec.decode_with_buffers(raw, buffers)
            else:
                params = self._codec.decode_msgpack(raw)
            return params if params is not None else self._codec.defaults()
        except InvalidArgumentError:
            raise
        except BaseException as error:
            raise refusal(error, self.signature) from error

    def decode_items_referred(self, raw: Any, values: Values) -> ReferredItems:
        """Decode a msgpack array of params as `decode_referred`, each when it is asked for.

        Raises:
            InvalidArgumentError: `raw` as a whole is no array.
        """
        try:
            return ReferredItems(raw, self._decode_referred_item, self._referred_codec(), values)
        except BaseException as error:
            raise refusal(error, self.signature, of_items=True) from error

    def decode_items(self, raw: Any) -> list[Any]:
        """Decode a msgpack array of params, maps and arrays mixed as they come, in one go.

        Raises:
            InvalidArgumentError: At least one is refused; `decode_items_singly` tells which.
        """
        try:  # hot: guarded by `scripts/bench map`
            return self._decode_list(raw)
        except BaseException as error:
            raise refusal(error, self.signature, of_items=True) from error

    def decode_items_singly(self, raw: Any) -> list[Any]:
        """Decode a msgpack array of params one by one, each to its params or its own error.

        Three times slower than `decode_items`, for when that has raised.

        Raises:
            InvalidArgumentError: `raw` as a whole is no array.
        """
        try:
            items = decode_raws(raw)
        except BaseException as error:
            raise refusal(error, self.signature, of_items=True) from error
        return [self._decode_or_error(item) for item in items]

    def encode(self, value: Any) -> tuple[bytes, Sequence[Buffer]]:
        """Encode a result as msgpack and buffers.

        Raises:
            NodeError: It can't be encoded; never any other.
        """
        try:  # hot: guarded by `scripts/bench rtt`, so the usual branch of encode_value is here
            if type(value) in NEVER_LIFTED:
                return encode_inline(value), NO_BUFFERS
            return encode_value(value)
        except BaseException as error:
            raise self.result_error(error, value) from error

    def encode_part(self, value: Any) -> tuple[bytes, Sequence[Buffer]]:
        """Encode a part; as `encode`. Guarded by ``scripts/bench streams``."""
        try:
            if type(value) in NEVER_LIFTED:
                return encode_inline(value), NO_BUFFERS
            return encode_value(value)
        except BaseException as error:
            raise self.result_error(error, value, verb="yielded") from error

    def encode_collected(self, value: Any, *, as_json: bool) -> bytes:
        """Encode a part that will stand among others in one list; errors as in `encode`."""
        encode = encode_json if as_json else encode_inline
        try:
            return encode(value)
        except BaseException as error:
            raise self.result_error(error, value, encode, verb="yielded") from error

    def encode_json(self, value: Any) -> bytes:
        """Encode a result as JSON; errors as in `encode`."""
        try:
            return encode_json(value)
        except BaseException as error:
            raise self.result_error(error, value, encode_json) from error

    def encode_items(self, values: list[Any]) -> tuple[bytes, list[tuple[int, NodeError]]]:
        """Encode the results of a chunk as one array, nil where one can't be encoded.

        Nothing is lifted into buffers. The failures come with their indexes, in order.

        Raises:
            BaseException: Only what came from outside, such as the `KeyboardInterrupt` of Ctrl-C.
        """
        try:
            return encode_inline(values), []
        except BaseException as error:  # find out which
            body, failures = self._encode_items_singly(values)
            if not failures and not isinstance(error, Exception):
                raise
            return body, failures

    def node_error(self, error: BaseException) -> PronghornError:
        """Make the caller's error of an exception that the node raised."""
        if self.is_ours and isinstance(error, PronghornError):
            return error
        retry = self.signature.retry
        return node_error(error, node=self.name, retry_on=() if retry is None else retry.on)

    def result_error(
        self,
        error: BaseException,
        value: Any,
        encode: Callable[[Any], bytes] = encode_inline,
        verb: str = "returned",
    ) -> NodeError:
        """Make the caller's error of an exception that `encode` has raised for a result or part."""
        return result_error(error, value=value, node=self.name, encode=encode, verb=verb)

    @property
    def info(self) -> NodeInfo:
        """What the broker is told of the node."""
        signature, policy = self.signature, None
        if signature.retry is not None:
            retry = signature.retry
            policy = RetryPolicy(retry.attempts, retry.backoff_s, retry.backoff_max_s)
        return NodeInfo(
            self.name,
            self.kind,
            policy,
            self.streams,
            signature.max_concurrency,
            signature.rate,
            signature.labels,
            signature.durability,
            signature.at_most_once,
            self.takes_context,
        )

    def describe(self, aliases: tuple[str, ...] = ()) -> NodeDescription:
        """Describe the node; not kept, some 100 us."""
        return describe(self.signature, self._codec, aliases)

    def _referred_codec(self) -> ReferredCodec:
        if self._referred is None:
            self._referred = ReferredCodec(self.signature)
        return self._referred

    def _decode_referred_item(self, raw: Raw, values: Values) -> Any:
        return self.decode_referred(raw, NO_BUFFERS, values)

    def _decode_or_error(self, raw: Raw) -> Any:
        try:
            return self.decode(raw)
        except InvalidArgumentError as error:
            return error

    def _encode_items_singly(self, values: list[Any]) -> tuple[bytes, list[tuple[int, NodeError]]]:
        encoded: list[Raw] = []
        failures: list[tuple[int, NodeError]] = []
        for index, value in enumerate(values):
            try:
                encoded.append(Raw(encode_inline(value)))
            except BaseException as error:
                encoded.append(Raw(_NIL))
                failures.append((index, self.result_error(error, value)))
        return encode_inline(encoded), failures


class DispatchTable:
    """All entries of a worker, sealed.

    Attributes:
        entries: By index; the users' nodes, then the builtin ones.
        node_table: What the broker is told.
        digest: Equal for two processes that have the same nodes with the same signatures.
    """

    __slots__ = ("_descriptions", "_indexes", "digest", "entries", "node_table")

    def __init__(
        self, entries: Iterable[Entry], runs: Mapping[str, Callable[..., Any]] | None = None
    ) -> None:
        """Seal entries whose indexes count from 0, with full names that differ.

        Args:
            entries: The users' nodes.
            runs: The calls by which runs of workflows are made, by full name.
        """
        users = tuple(entries)
        assert [entry.index for entry in users] == list(range(len(users)))
        assert not any(entry.name.startswith(BUILTIN_PREFIX) for entry in users)
        assert len({entry.name for entry in users}) == len(users)
        listing = Entry.of(len(users), f"{BUILTIN_PREFIX}nodes", self._list_nodes)
        calls = (runs or {}).items()
        of_runs = (_entry_of_run(len(users) + 1 + i, *call) for i, call in enumerate(calls))
        self.entries: Final = (*users, listing, *of_runs)
        self.digest: Final = _digest(self.entries)
        self.node_table: Final = NodeTable(
            nodes=tuple(entry.info for entry in self.entries),
            digest=self.digest,
        )
        # Every name a caller may use -> index.
        self._indexes: Final = self.node_table.names()
        self._descriptions: list[NodeDescription] | None = None  # made when first asked for

    @classmethod
    def of(cls, functions: Mapping[str, Callable[..., Any]]) -> "DispatchTable":
        """Compile marked functions, given by their full names, and seal them.

        Raises:
            NodeDefinitionError: One of them can't be served.
        """
        for name in functions:
            if name.startswith(BUILTIN_PREFIX):
                raise NodeDefinitionError(f"{name}: names that begin with pronghorn. are our own")
        return cls(
            Entry.of(index, name, function)
            for index, (name, function) in enumerate(functions.items())
        )

    def __len__(self) -> int:
        return len(self.entries)

    def lookup(self, name: str) -> Entry:
        """Find a node by its full name or by its bare name where that is unique.

        Raises:
            NotFoundError: There is none, or more than one; says what may have been meant.
        """
        index = self._indexes.get(name)
        if index is None:
            raise self.node_table.not_found(name)
        return self.entries[index]

    def descriptions(self) -> list[NodeDescription]:
        """Describe the users' nodes, by index; made once."""
        if self._descriptions is None:
            aliases: dict[int, list[str]] = {}
            for name, index in self._indexes.items():
                if name != self.entries[index].name:
                    aliases.setdefault(index, []).append(name)
            self._descriptions = [
                entry.describe(tuple(aliases.get(entry.index, ())))
                for entry in self.entries
                if not entry.name.startswith(BUILTIN_PREFIX)
            ]
        return self._descriptions

    def _list_nodes(self) -> list[NodeDescription]:
        """List the nodes that are served, with their signatures and JSON Schemas."""
        return self.descriptions()


def _entry_of_run(index: int, name: str, function: Callable[..., Any]) -> Entry:
    """Compile a call of our own that run hosts answer."""
    signature = msgspec.structs.replace(read_signature(name, function), labels=(HOST_LABEL,))
    entry = Entry(index, signature)
    entry.is_ours = True
    return entry


def _digest(entries: Sequence[Entry]) -> str:
    text = "\n".join(entry.signature.identity for entry in entries)
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
