"""Orders two lattes from a running shop, waits until they are ready, and shows the customer's page.

Usage: python place_order.py READY_FILE    (the file that `starcoffee up --ready-file READY_FILE` writes)
Needs the generated code on the PYTHONPATH: `buf generate` writes it to gen/python.
"""

import json
import sys
import time
import uuid

import grpc
from google.rpc import error_details_pb2, status_pb2
from starcoffee.mypage.v1 import service_pb2 as mypage, service_pb2_grpc as mypage_grpc
from starcoffee.order.v1 import order_pb2, service_pb2 as order, service_pb2_grpc as order_grpc
from starcoffee.type.v1 import line_item_pb2


def reason(error: grpc.RpcError) -> str:
    """The reason of a refusal: clients switch on it, never on the text."""
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return info.reason
    return ""


def main() -> None:
    with open(sys.argv[1]) as file:
        shop = json.load(file)
    orders = order_grpc.OrderServiceStub(grpc.insecure_channel(shop["order"]))
    pages = mypage_grpc.MyPageServiceStub(grpc.insecure_channel(shop["mypage"]))

    customer = f"python-{uuid.uuid4().hex[:8]}"
    request = order.PlaceOrderRequest(
        request_id=str(uuid.uuid4()),
        customer_id=customer,
        lines=[line_item_pb2.LineItem(menu_item_id="latte", quantity=2, size=line_item_pb2.SIZE_LARGE, note="oat milk, s'il vous plaît")],
    )
    placed = orders.PlaceOrder(request, timeout=5).order
    assert placed.state == order_pb2.ORDER_STATE_PAID, placed
    assert placed.total.units > 0, placed
    again = orders.PlaceOrder(request, timeout=5).order
    assert again.order_id == placed.order_id, "a repeat is the same order"

    for update in orders.WatchOrder(order.WatchOrderRequest(order_id=placed.order_id), timeout=10):
        last = update.order
    assert last.state == order_pb2.ORDER_STATE_READY, last

    try:
        orders.CancelOrder(order.CancelOrderRequest(order_id=placed.order_id), timeout=5)
        raise AssertionError("a coffee that is made was cancelled")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
        assert reason(error) == "ORDER_NOT_CANCELLABLE", error

    deadline = time.monotonic() + 10  # the page follows by events
    while True:
        listed = pages.ListMyOrders(mypage.ListMyOrdersRequest(customer_id=customer), timeout=5).orders
        if listed and listed[0].state == order_pb2.ORDER_STATE_READY:
            break
        assert time.monotonic() < deadline, listed
        time.sleep(0.02)
    states = [order_pb2.OrderState.Name(entry.state) for entry in listed[0].history]
    assert states == [f"ORDER_STATE_{state}" for state in ("PLACED", "PAID", "MAKING", "READY")], states
    print(f"python: {customer}'s order {placed.order_id} cost {placed.total.units}.{placed.total.nanos // 10_000_000:02} {placed.total.currency_code} and went {' '.join(states)}")


if __name__ == "__main__":
    main()
