"""A network of libtorrent DHT nodes in one process, and a client that gets signed mutable items (BEP 44) from it.

dht.py NODES KEYS IN_FLIGHT SECRET PUBLIC: the last two are an Ed25519 key in hexadecimal. Prints one JSON object a phase.
"""
import hashlib, json, os, resource, sys, time
import libtorrent as lt

NODES, KEYS, IN_FLIGHT = (int(text) for text in sys.argv[1:4])
SECRET, PUBLIC = (bytes.fromhex(text) for text in sys.argv[4:6])
# libtorrent takes the expanded key: the clamped scalar and the second half of the hash (RFC 8032, 5.1.5).
EXPANDED = bytearray(hashlib.sha512(SECRET).digest())
EXPANDED[0] &= 248
EXPANDED[31] = EXPANDED[31] & 63 | 64
PORT = 6000
ALERTS = lt.alert.category_t.dht_notification | lt.alert.category_t.status_notification


def session(index):
    return lt.session({
        "listen_interfaces": f"127.0.0.1:{PORT + index}", "dht_bootstrap_nodes": f"127.0.0.1:{PORT}",
        "enable_dht": True, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
        # Without these, nodes on one address refuse each other, and the rate of answers is bounded.
        "dht_restrict_routing_ips": False, "dht_restrict_search_ips": False, "dht_ignore_dark_internet": False,
        "dht_enforce_node_id": False, "dht_prefer_verified_node_ids": False,
        "dht_block_ratelimit": 10_000_000, "dht_upload_rate_limit": 100_000_000,
        "alert_mask": ALERTS, "aio_threads": 1, "hashing_threads": 1,
    })


def await_alerts(of, kind, most, seconds):
    """Final alerts of this kind, `most` or more: when each came, and its salt."""
    times, end = [], time.monotonic() + seconds
    while len(times) < most and time.monotonic() < end:
        of.wait_for_alert(100)
        for alert in of.pop_alerts():
            if isinstance(alert, kind) and getattr(alert, "authoritative", True):
                times.append((time.monotonic(), getattr(alert, "salt", b"")))
    return times


def processor():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def datagrams():
    with open("/proc/net/snmp") as table:
        names, values = [line.split() for line in table if line.startswith("Udp:")]
    return int(values[names.index("OutDatagrams")])


def measure(client, keys, in_flight):
    """Gets each key, `in_flight` at a time."""
    client.pop_alerts()
    began, cpu, sent = time.monotonic(), processor(), datagrams()
    asked_at, under_way, latencies, waiting = {}, 0, [], list(reversed(keys))
    ended = []
    while (waiting or under_way) and time.monotonic() - began < 60:
        while waiting and under_way < in_flight:
            key = waiting.pop()
            asked_at.setdefault(key, []).append(time.monotonic())
            under_way += 1
            client.dht_get_mutable_item(PUBLIC, key)
        for at, salt in await_alerts(client, lt.dht_mutable_item_alert, 1, 5):
            salt = salt if isinstance(salt, bytes) else salt.encode()
            if asked_at.get(salt):
                latencies.append(at - asked_at[salt].pop(0))
                ended.append(at - began)
                under_way -= 1
    print(json.dumps({"latencies": latencies, "ended": ended, "asked": len(keys),
                      "processor": processor() - cpu, "datagrams": datagrams() - sent}), flush=True)


nodes = [session(index) for index in range(NODES + 1)]
client = nodes[-1]
for index, node in enumerate(nodes):
    for other in range(max(0, index - 8), index):
        node.add_dht_node(("127.0.0.1", PORT + other))
time.sleep(15)
keys = []
for number in range(KEYS):
    key = b"key %d" % number
    nodes[0].dht_put_mutable_item(bytes(EXPANDED), PUBLIC, b"%08d" % number + b"x" * 120, key)
    if await_alerts(nodes[0], lt.dht_put_alert, 1, 10):
        keys.append(key)
measure(client, keys, 1)
measure(client, keys * 4, IN_FLIGHT)
# The destructors of the sessions take seconds and are not measured.
os._exit(0)
