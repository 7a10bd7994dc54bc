//! `POST /networks/create`, connect and disconnect: a bridge in a subnet of ours, whatever was asked.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_fuzz::{no_reserved_labels, only};
use plimsoll_host::request::network::{ConnectRequest, DisconnectRequest, NetworkRequest};
use serde_json::json;

const OWNER: &str = "plimsoll.user";
const OPTIONS: [&str; 2] = [
    "com.docker.network.bridge.enable_icc",
    "com.docker.network.driver.mtu",
];

fuzz_target!(|data: &[u8]| {
    if let Ok(network) = NetworkRequest::parse(data) {
        let ours = [(OWNER.to_owned(), "alice".to_owned())].into();
        let subnet = "10.0.0.0/26".parse().expect("a subnet");
        let body = network.body("alice.0.back", subnet, &ours);
        assert_eq!(body["Name"], "alice.0.back");
        assert_eq!(body["Driver"], "bridge");
        assert_eq!(
            (&body["Ingress"], &body["EnableIPv6"]),
            (&json!(false), &json!(false))
        );
        assert_eq!(
            body["IPAM"],
            json!({"Driver": "default", "Config": [{"Subnet": "10.0.0.0/26"}]})
        );
        only(&body["Options"], &OPTIONS);
        no_reserved_labels(&body["Labels"], &[OWNER]);
        assert_eq!(body["Labels"][OWNER], "alice");
    }
    if let Ok(connect) = ConnectRequest::parse(data) {
        let endpoint = connect.endpoint.body();
        for denied in ["DriverOpts", "MacAddress", "GlobalIPv6Address", "IPAddress"] {
            assert!(endpoint[denied].is_null(), "{denied} in {endpoint}");
        }
        let body = json!({"Container": connect.container, "EndpointConfig": endpoint});
        let again =
            ConnectRequest::parse(body.to_string().as_bytes()).expect("our own body is read");
        assert_eq!(again.endpoint.body(), endpoint);
    }
    let _ = DisconnectRequest::parse(data);
});
