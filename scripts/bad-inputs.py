"""Sends a running shop what clients get wrong, on every method where it applies, and checks that each is answered as it should be: by code,
reason and fields, with nothing done, nothing of it in the log, and everybody else still served.

Usage: python bad-inputs.py READY_FILE LOG_FILE
READY_FILE is of `starcoffee up --ready-file`, LOG_FILE its stderr. It has no barista, and a menu with `latte`, `mocha` off sale, and `diamond`,
two of which cost more than money can count. Needs the generated code on the PYTHONPATH, whose descriptors tell methods, fields and rules.
"""

import importlib
import itertools
import json
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import starcoffee
from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.type.money_pb2 import Money
from starcoffee.order.v1.order_pb2 import OrderState

MARK = f"mark{uuid.uuid4().hex[:12]}"  # in what is sent, and never in the log
NOBODY, REGULAR, CROWD = f"nobody-{MARK}", f"regular-{MARK}", f"crowd-{MARK}"  # nobody sends only what is refused
ID = str(uuid.uuid4())
BAD_TEXTS = ["", str(uuid.UUID(int=0)), f"{ID}0", f"{{{ID}}}", f"{ID[1:]}\0", f"{MARK}\0", f"../{MARK}", f"'; DROP TABLE orders; --{MARK}"]
BAD_TEXTS += [MARK * 10, f"1{'0' * 48}"]  # the last has the shape of a page token
BAD_USD = [(0, 0), (-4, 0), (0, -500_000_000), (4, 10**9), (4, -(2**31)), (4, -1), (-4, 1), (4, 1), (2**63 - 1, 0)]
BAD_MONEY = [("USD", *it) for it in BAD_USD] + [(code, 4, 0) for code in ("EUR", "usd", "", MARK)]
NASTY = f"{MARK} \u202e\x1b[2J\r\n{MARK}\r\n".ljust(200, "☕")
LATTES = [{"menu_item_id": "latte", "quantity": 2, "note": MARK}]
GOOD = {"customer_id": NOBODY, "barista_id": f"bar-{MARK}", "lines": LATTES, "amount": Money(currency_code="USD", units=9)}
NOT_FOUND = {"order": "ORDER_NOT_FOUND", "payment": "PAYMENT_NOT_FOUND", "make": "TICKET_NOT_FOUND", "ops": "DEAD_LETTER_NOT_FOUND"}
LISTS = ("ListOrders", "ListPayments", "ListTickets", "ListCharges")
INVALID, STATE = "INVALID_ARGUMENT VALIDATION", "FAILED_PRECONDITION"
# What operators ask for while there is none of it: no dead letter.
NONE = {"RedriveDeadLetter": "NOT_FOUND DEAD_LETTER_NOT_FOUND", "DiscardDeadLetter": "NOT_FOUND DEAD_LETTER_NOT_FOUND"}
LED_BY = {"PAID": [], "MAKING": ["StartTicket"], "READY": ["StartTicket", "CompleteTicket"], "CANCELLED": ["CancelOrder"]}
# The row, the state of an order, what is sent, and the answer: OK tells only what there was already.
BY_STATE: list[tuple[int, str, str, dict[str, Any], str]] = [
    (34, "PAID", "PlaceOrder", {}, "OK"),
    (34, "MAKING", "PlaceOrder", {}, "OK"),
    (34, "PAID", "PlaceOrder", {"lines": LATTES * 2}, f"{STATE} REQUEST_ID_REUSED"),
    (34, "PAID", "PlaceOrder", {"payment_token": "tok_other"}, f"{STATE} REQUEST_ID_REUSED"),
    (36, "PAID", "CancelOrder", {"revision": 1}, "ABORTED REVISION_MISMATCH"),
    (36, "CANCELLED", "CancelOrder", {"revision": 1}, "OK"),
    (36, "MAKING", "CancelOrder", {}, f"{STATE} ORDER_NOT_CANCELLABLE"),
    (36, "READY", "CancelOrder", {}, f"{STATE} ORDER_NOT_CANCELLABLE"),
    (37, "PAID", "Pay", {}, "OK"),
    (37, "PAID", "Pay", {"amount": Money(currency_code="USD", units=5)}, f"{STATE} AMOUNT_MISMATCH"),
    (37, "PAID", "VoidPayment", {}, "OK"),
    (38, "PAID", "CompleteTicket", {}, f"{STATE} TICKET_STATE"),
    (38, "MAKING", "StartTicket", {}, "OK"),
    (38, "MAKING", "StartTicket", {"barista_id": "another"}, f"{STATE} TICKET_STATE"),
    (38, "READY", "RejectTicket", {}, f"{STATE} TICKET_STATE"),
]


class Method(NamedTuple):
    """A method, and where it is served: nowhere if there is no address."""

    path: str
    address: str
    name: str = "an unknown method"
    request: Descriptor | None = None
    response: Descriptor | None = None
    streams: bool = False


class Place(NamedTuple):
    """A field of a request, the list or message it is in if that is not the request itself, and whether its zero breaks a rule."""

    field: FieldDescriptor
    rules: Any
    path: str
    required: bool
    outer: FieldDescriptor | None = None


class Shop:
    """The shop, through connections for what is tried, and others that must not suffer."""

    def __init__(self, addresses: dict[str, str]) -> None:
        self.addresses, options = addresses, [("grpc.use_local_subchannel_pool", 1)]
        self.tried, self.others = ({at: grpc.insecure_channel(at, options) for at in addresses.values()} for _ in range(2))
        self.failures, self.covered, self.count, self.slowest, self.last = [], set(), 0, (0.0, ""), "the start"
        self.methods = {it.name: it for it in self.find()}
        self.served = [it for it in self.methods.values() if it.address]

    def find(self) -> Iterator[Method]:
        """All methods. A service without a port of its own is on everybody's, or on nobody's yet."""
        for file in sorted(it for root in starcoffee.__path__ for it in Path(root).glob("*/v1/service_pb2.py")):
            (service,) = importlib.import_module(f"starcoffee.{file.parts[-3]}.v1.service_pb2").DESCRIPTOR.services_by_name.values()
            for it in service.methods:
                method = Method(f"/{service.full_name}/{it.name}", "", it.name, it.input_type, it.output_type, it.server_streaming)
                anywhere = (at for at in self.addresses.values() if self.call(method._replace(address=at), b"")[0] != "UNIMPLEMENTED")
                yield method._replace(address=self.addresses.get(file.parts[-3]) or next(anywhere, ""))

    def everywhere(self, method: Method) -> bool:
        """A service without a port of its own is on every one."""
        return method.path.split(".")[1] not in self.addresses

    def call(self, method: Method, request: bytes | None, others: bool = False) -> tuple[str, Any]:
        """What is told, and of a stream the first message. Without a request not even an empty one is sent."""
        channel = (self.others if others else self.tried)[method.address]
        call = channel.stream_stream(method.path)(iter(()), timeout=10) if request is None else channel.unary_stream(method.path)(request, timeout=10)
        try:
            answers = list(itertools.islice(call, 1 if method.streams else None))
            call.cancel()
            return "OK", GetMessageClass(method.response).FromString(answers[0]) if answers and method.response else None
        except grpc.RpcError as error:
            return told(error), None

    def ask(self, name: str, known: dict[str, Any] | None = None, **values: Any) -> Any:
        """A good call, as others make it."""
        answer, body = self.call(self.methods[name], example(self.methods[name].request, {**(known or {}), **values}), others=True)
        if not body:
            raise RuntimeError(f"{name} {values} was answered {answer}")
        return body

    def rows(self, name: str, **values: Any) -> list[Any]:
        """What a list tells, everybody's if nobody is named."""
        body = self.ask(name, {"customer_id": ""}, **values)
        return next((list(value) for field, value in body.ListFields() if field.is_repeated), [])

    def world(self, order_id: str) -> list[list[Any]]:
        """All that there is, or all of one order; asking for it shows that every service serves."""
        return [self.rows(name, order_id=order_id, page_size=1000) for name in LISTS] + [[self.ask("GetMyPage")]]

    def check(self, row: int, what: str, method: Method, request: bytes | None, expected: str, order_id: str = "", before: Any = None) -> Any:
        """The answer is as it must be, and nothing has changed."""
        before, self.last, began = before or self.world(order_id), f"row {row}, {method.path[1:]}, {what}", time.monotonic()
        (answer, body), ended, after = self.call(method, request), time.monotonic(), self.world(order_id)
        made = [value for _, value in body.ListFields() if all(value not in rows for rows in before)] if body else []
        wrong = [f"not {expected}"] * (answer != expected) + ["and something happened"] * (after != before) + [f"with a new {it}" for it in made]
        self.note(row, what, method, not wrong, ", ".join([answer, *wrong]))
        self.slowest = self.slowest if body else max(self.slowest, (ended - began, self.last))
        return after

    def note(self, row: int, what: str, method: Method, good: bool, instead: Any) -> None:
        """One more case, and what came instead of what was to come."""
        self.count += 1
        self.covered |= {method.name} & self.methods.keys()
        self.failures += [] if good else [f"row {row}, {method.path[1:]}, {what}: {instead}"]

    def until(self, what: str, condition: Callable[[], Any]) -> Any:
        """Others hear by events."""
        deadline = time.monotonic() + 20
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"in 20 seconds it did not come to this: {what}")
        return found

    def place(self, **values: Any) -> dict[str, Any]:
        """An order, paid and in the bar's queue: all that it is known by, and what may be sent with it."""
        sent = {**GOOD, "request_id": str(uuid.uuid4()), "customer_id": REGULAR, "payment_token": f"tok_{MARK}", **values}
        order_id = self.ask("PlaceOrder", sent).order.order_id
        (payment,) = self.rows("ListPayments", order_id=order_id)
        (ticket,) = self.until("a ticket", lambda: self.rows("ListTickets", order_id=order_id))
        return {**sent, "order_id": order_id, "payment_id": payment.payment_id, "ticket_id": ticket.ticket_id}

    def reaches(self, order_id: str, state: str, least: int = 0) -> None:
        """Waits for an order's state, at some revision at least."""
        wanted = OrderState.Value(f"ORDER_STATE_{state}")
        self.until(f"the order is {state}", lambda: any(it.revision >= least for it in self.rows("ListOrders", order_id=order_id, states=[wanted])))

    def at_once(self, requests: list[bytes]) -> Iterator[Any]:
        """Orders placed at the same time; to be waited for by who iterates."""
        method = self.methods["PlaceOrder"]
        calls = [self.tried[method.address].unary_unary(method.path).future(it, timeout=10) for it in requests]
        return (GetMessageClass(method.response).FromString(it.result()).order for it in calls)


def told(error: Any) -> str:
    """Code, reason if it is ours, and the fields at fault."""
    details = status_pb2.Status.FromString(dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")).details
    infos = [ErrorInfo.FromString(it.value) for it in details if it.Is(ErrorInfo.DESCRIPTOR)]
    bad = [it for some in details if some.Is(BadRequest.DESCRIPTOR) for it in BadRequest.FromString(some.value).field_violations]
    return " ".join([error.code().name, *(it.reason for it in infos if it.domain == "starcoffee.dev"), *sorted({it.field for it in bad})])


def places(request: Descriptor) -> Iterator[Place]:
    """The fields of a request, and those within its own messages."""
    for field in request.fields:
        rules = field.GetOptions().Extensions[validate_pb2.field]
        some = rules.string.uuid or rules.int32.gte > 0 or rules.repeated.min_items or not re.fullmatch(rules.string.pattern or ".*", "")
        yield Place(field, rules, field.name, bool(rules.required or (some and rules.ignore != validate_pb2.IGNORE_IF_ZERO_VALUE)))
        if field.message_type and field.message_type.file.package.startswith("starcoffee."):
            path = f"{field.name}[0]" if field.is_repeated else field.name
            yield from (it._replace(path=f"{path}.{it.path}", outer=field) for it in places(field.message_type))


def example(request: Descriptor, values: dict[str, Any] | None = None) -> bytes:
    """A request, good but for what is given: with what must be set, and ids that nobody knows."""
    values = {**GOOD, **(values or {})}
    for place in (it for it in places(request) if not it.outer and it.required and it.path not in values):
        if not place.rules.string.uuid:
            raise RuntimeError(f"{place.field.full_name} must be set, and GOOD has no example of it")
        values[place.path] = str(uuid.uuid4())
    return GetMessageClass(request)(**{name: value for name, value in values.items() if name in request.fields_by_name}).SerializeToString()


def spoilt(place: Place) -> Iterator[tuple[int, Any, str]]:
    """What a field must not be: the row that says so, the value, and where the fault is found."""
    field, path, needed, kind = place.field, place.path, place.required, place.field.message_type
    rules = place.rules.repeated.items if field.is_repeated else place.rules
    row = {"request_id": 34, "page_size": 33, "page_token": 33}.get(field.name)
    text, numbers = rules.string, [999, -1, *rules.enum.not_in] if rules.enum.defined_only else []
    bad = [it for it in BAD_TEXTS if text.uuid or field.name == "page_token" or (text.pattern and not re.fullmatch(text.pattern, it))]
    yield from ((row or 26, it, path) for it in bad if it or needed)
    yield from ((row or 31, MARK.ljust(text.max_len + 1, "x"), path) for _ in range(text.max_len > 0))
    yield from ((30, [it] if field.is_repeated else it, f"{path}[0]" if field.is_repeated else path) for it in numbers)
    for bounds, bits in ((rules.int32, 31), (rules.int64, 63)):
        least, most = [bounds.gte - 1, bounds.gte - 2, -(2**bits)], [bounds.lte + 1, 2**bits - 1]
        yield from ((row or 28, it, path) for it in least * bounds.HasField("gte") + most * bounds.HasField("lte"))
    most, listed = place.rules.repeated.max_items, kind and field.is_repeated
    yield from [(29, GOOD.get(field.name, [1]) * (most + 1), path)] if most else []
    yield from [(29 if listed else 26, None, path)] * bool(needed and (kind or field.is_repeated))
    yield from [(26, [{}], " ".join(sorted(f"{path}[0].{it.path}" for it in places(kind) if it.required)))] if listed else []
    money = BAD_MONEY if kind and kind.full_name == "google.type.Money" else []
    yield from ((39, Money(currency_code=code, units=units, nanos=nanos), path) for code, units, nanos in money)


def chunk(number: int, data: bytes, wire: int = 2) -> bytes:
    """A field of protobuf by its number; data of length-delimited ones are short."""
    return bytes([number << 3 & 127 | wire | 128, number >> 4]) + bytes([len(data)] if wire == 2 else []) + data


def refusals(method: Method) -> Iterator[tuple[int, str, bytes | None, str]]:
    """What a method refuses whatever there is: the row, what is wrong, the request, the answer."""
    request, every, good, mark = method.request, list(places(method.request)), example(method.request), MARK.encode()
    yield 4, "no message", None, INVALID
    required = sorted(it.path for it in every if not it.outer and it.required)
    yield from [(26, "an empty message", b"", " ".join([INVALID, *required]))] * bool(required)
    named = any(it.rules.string.uuid and it.required for it in every) and method.name not in ("PlaceOrder", "Pay", "VoidPayment")
    yield from [(27, "an id that nobody knows", good, f"NOT_FOUND {NOT_FOUND.get(method.path.split('.')[1])}")] * named
    odd = [b"\xff\xfe\xfd" + mark, b"\0\1", chunk(99, b"\xff" * 11, 0), chunk(99, mark)[:-1], *(chunk(99, b"", wire) for wire in (3, 4, 6))]
    yield from ((9, f"{it!r:.60}", good + it, INVALID) for it in [*odd, chunk(99, b"", 3) * 101 + chunk(99, b"", 4) * 101])
    for place in every:
        for row, it, at in spoilt(place):
            values = {place.field.name: it}
            whole = {place.outer.name: [{**GOOD[place.outer.name][0], **values}]} if place.outer else values
            yield row, f"{place.path} = {it!r:.60}", example(request, whole), f"{INVALID} {at}"
        number, path = place.field.number, place.path.replace("[0]", f"[{len(LATTES)}]")  # beyond the good ones
        for it in [chunk(number, b"1234", 5)] + [chunk(number, b"\xc3(" + mark)] * (place.field.type == FieldDescriptor.TYPE_STRING):
            yield 9, f"{path} as {it!r}", good + (chunk(place.outer.number, it) if place.outer else it), f"{INVALID} {path}"


def refused(shop: Shop) -> None:
    """Rows 1, 4, 9, 26 to 31, 33, 34 and 39: whatever the shop's state is."""
    shop.place()
    place, unknown = shop.methods["PlaceOrder"], "INVALID_ARGUMENT MENU_ITEM_UNKNOWN lines[0].menu_item_id"
    for row, item, answer in [(29, MARK, unknown), (29, "mocha", f"{STATE} MENU_ITEM_OFF_SALE"), (28, "diamond", f"{INVALID} lines")]:
        before = shop.check(row, item, place, example(place.request, {"lines": [{**LATTES[0], "menu_item_id": item}]}), answer)
    for method in shop.served:
        for case in refusals(method):
            before = shop.check(case[0], case[1], method, *case[2:], before=before)
    for at, it in itertools.product(shop.addresses.values(), shop.methods.values()):
        for path in [it.path] if at != it.address and not shop.everywhere(it) else [f"{it.path}{MARK}", f"/{MARK}{it.path}", it.path.lower()]:
            before = shop.check(1, f"at {at}", it._replace(path=path, address=at), example(it.request), "UNIMPLEMENTED", before=before)


def accepted(shop: Shop) -> None:
    """Rows 11 and 31: fields of a newer client, and texts that are odd and not too long, which are kept as they were sent."""
    newer = chunk(99, b"\1", 0) + chunk(98, MARK.encode()) + chunk(97, chunk(96, b"1234", 5) + chunk(97, b"", 4), 3)
    for method in shop.served:
        known = {**shop.place(lines=[{**LATTES[0], "note": NASTY}]), "request_id": str(uuid.uuid4()), "reason": NASTY}
        if method.name == "CompleteTicket":
            shop.ask("StartTicket", known)
        inner = {"lines": b"\x0a\5latte\x10\1" + newer, "amount": newer}
        nested = [chunk(it.number, inner[it.name]) for it in method.request.fields if it.name in inner]
        answer, body = shop.call(method, example(method.request, known) + newer + b"".join(nested))
        shop.note(11, "newer fields", method, answer == NONE.get(method.name, "OK"), answer)
        if "reason" in method.request.fields_by_name and method.name not in NONE:
            kept = [it.state_note for _, it in body.ListFields()] if body else []
            shop.note(31, "a reason", method, kept == [NASTY], f"kept as {kept}")
    which = {"order_id": known["order_id"], "customer_id": REGULAR}
    shop.until("my page has the order", lambda: shop.rows("ListMyOrders", **which))
    kept = {name: [it.lines[0].note for it in shop.rows(name, **which)] for name in (*LISTS[:3], "ListMyOrders")}
    shop.note(31, "a note", shop.methods["PlaceOrder"], all(it == [NASTY] for it in kept.values()), kept)


def by_state(shop: Shop) -> None:
    """Rows 34 and 36 to 38: what an order's state does not allow, and what is the same again."""
    for row, state, name, values, answer in BY_STATE:
        known, method = shop.place(), shop.methods[name]
        for it in LED_BY[state]:
            shop.ask(it, known)
        # of a cancel, an order hears once more after its last state: it was placed, paid, asked for, and not made, and the money is back
        shop.reaches(known["order_id"], state, 5 if state == "CANCELLED" else 0)
        shop.check(row, f"{state} {values}", method, example(method.request, {**known, **values}), answer, known["order_id"])


def unpaid(shop: Shop) -> None:
    """Rows 36 and 37: an order is cancelled while its payment is under way."""
    cancel, pay, customer = shop.methods["CancelOrder"], shop.methods["Pay"], f"unpaid-{MARK}"
    placed = shop.at_once([example(shop.methods["PlaceOrder"].request, {"customer_id": customer, "payment_token": "tok_slow"})])
    (order,) = shop.until("it is placed", lambda: shop.rows("ListOrders", customer_id=customer))
    for what in ("unpaid", "unpaid, twice"):
        answer, body = shop.call(cancel, example(cancel.request, {"order_id": order.order_id}))
        shop.note(36, what, cancel, bool(body) and body.order.HasField("cancel_requested_time"), answer)
    (ended,) = placed
    shop.reaches(order.order_id, "CANCELLED")
    shop.until("the provider knows", lambda: shop.rows("ListPayments", order_id=order.order_id)[0].revision > 1)
    late = example(pay.request, {"order_id": order.order_id, "amount": order.total, "customer_id": customer})
    shop.check(37, "Pay after Void", pay, late, f"{STATE} PAYMENT_VOIDED", order.order_id)
    shop.note(36, "unpaid", cancel, not shop.rows("ListCharges", order_id=order.order_id), f"{ended} was charged")


def crowds(shop: Shop) -> None:
    """Rows 34 and 35, one request_id of two customers, of each a hundred times at once; and 33, what only a list of a thousand shows."""
    method, request_id = shop.methods["PlaceOrder"], str(uuid.uuid4())
    for known in ({"customer_id": f"{name}-{MARK}", "request_id": request_id} for name in ("one", "two")):
        order, *others = shop.at_once([example(method.request, known)] * 100)
        shop.until("a ticket", lambda order=order: shop.rows("ListTickets", order_id=order.order_id))
        found = [shop.rows(name, customer_id=order.customer_id) for name in LISTS[:3]] + [shop.rows("ListCharges", order_id=order.order_id)]
        one = [len(it) for it in found] == [1] * 4 and all(it.order_id == order.order_id for it in others)
        shop.note(35, f"at once by {order.customer_id}", method, one, f"{found}, {others}")
    for _ in range(11):
        list(shop.at_once([example(method.request, {"customer_id": CROWD}) for _ in range(91)]))
    shop.until("my page has them all", lambda: shop.ask("GetMyPage", customer_id=CROWD).order_count == 1001)
    for method in (it for it in shop.served if "page_size" in it.request.fields_by_name and not shop.everywhere(it)):
        for size, most in ((0, 50), (7, 7), (10**6, 1000)):
            body = shop.ask(method.name, customer_id=CROWD, page_size=size)
            got, token = len(body.ListFields()[0][1]), body.next_page_token
            shop.note(33, f"page_size {size}", method, got == most and bool(token), f"{got} of {most}")
            shop.check(33, "a foreign token", method, example(method.request, {"page_token": token, "order_id": ID}), f"{INVALID} page_token", ID)
    shop.failures += [f"who sent only what is refused has {it}" for name in LISTS[:3] for it in shop.rows(name, customer_id=NOBODY)]


def main() -> None:
    """Goes through all rows, and looks into the log."""
    shop = Shop({name: at for name, at in json.loads(Path(sys.argv[1]).read_text()).items() if not name.endswith("_admin")})
    for rows in (refused, accepted, by_state, unpaid, crowds):
        try:
            rows(shop)
        except (LookupError, RuntimeError, ValueError, grpc.RpcError) as error:
            shop.failures.append(f"{rows.__name__} came to an end after {shop.last}: {error}")
    for channel in (*shop.tried.values(), *shop.others.values()):
        channel.close()  # else a call that nobody waits for may keep Python from ending
    log = Path(sys.argv[2]).read_text(errors="replace")
    shop.failures += [f"log: {it}" for it in log.splitlines() if re.search(f"{MARK}|panicked|\x1b|\u202e", it)] + ["no log"] * (not log)
    good = f"{shop.count} cases on {len(shop.covered)} methods answered as they should be; slowest {shop.slowest[0] * 1000:.0f} ms: {shop.slowest[1]}"
    print(*(f"bad-inputs: {it}" for it in shop.failures or [good]), sep="\n", file=sys.stderr if shop.failures else sys.stdout)
    sys.exit(bool(shop.failures))


if __name__ == "__main__":
    main()
