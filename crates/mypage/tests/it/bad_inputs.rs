//! Rows 26, 30 and 33 of the bad inputs.

use crate::{
    page::{Page, reason, violations},
    story::Story,
};
use contract::mypage::v1::{GetMyPageRequest, ListMyOrdersRequest, WatchMyOrdersRequest};
use tonic::Code;

#[tokio::test]
async fn what_is_no_customer_is_refused_with_its_field() {
    let page = Page::open().await;
    let long = "k".repeat(65);
    for customer_id in
        ["", &long, "two words", "kim\0", "../kim", "' OR 1=1 --", "{kim}", "kım", "kim\n"]
    {
        let customer_id = customer_id.to_owned();
        let mut client = page.client();
        let answers = [
            client.get_my_page(GetMyPageRequest { customer_id: customer_id.clone() }).await.err(),
            client
                .watch_my_orders(WatchMyOrdersRequest { customer_id: customer_id.clone() })
                .await
                .err(),
            client
                .list_my_orders(ListMyOrdersRequest { customer_id, ..Default::default() })
                .await
                .err(),
        ];
        for answer in answers {
            let status = answer.expect("it is no customer");
            assert_eq!(
                (status.code(), reason(&status).as_str()),
                (Code::InvalidArgument, "VALIDATION")
            );
            assert_eq!(violations(&status), ["customer_id"]);
        }
    }
    page.close().await;
}

#[tokio::test]
async fn lists_refuse_what_makes_no_sense() {
    let page = Page::open().await;
    page.tell(&[Story::of(1, "kim").placed(), Story::of(2, "kim").placed()]).await;
    let of_kim = ListMyOrdersRequest { customer_id: "kim".to_owned(), ..Default::default() };
    let first = ListMyOrdersRequest { page_size: 1, ..of_kim.clone() };
    let page_token = page.try_list(first).await.expect("a page").next_page_token;
    for (request, field) in [
        (ListMyOrdersRequest { page_size: -1, ..of_kim.clone() }, "page_size"),
        (ListMyOrdersRequest { page_token: "garbage".to_owned(), ..of_kim.clone() }, "page_token"),
        (
            ListMyOrdersRequest { customer_id: "lee".to_owned(), page_token, ..of_kim.clone() },
            "page_token",
        ),
        (ListMyOrdersRequest { states: vec![999], ..of_kim.clone() }, "states[0]"),
        (ListMyOrdersRequest { states: vec![0], ..of_kim.clone() }, "states[0]"),
    ] {
        let status = page.try_list(request.clone()).await.expect_err("it makes no sense");
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::InvalidArgument, "VALIDATION"),
            "{request:?}"
        );
        assert_eq!(violations(&status), [field]);
    }
    for page_size in [0, 1_000_000] {
        let listed = page.try_list(ListMyOrdersRequest { page_size, ..of_kim.clone() }).await;
        assert_eq!(listed.expect("it is capped").orders.len(), 2);
    }
    page.close().await;
}
