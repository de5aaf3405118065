"""No data directory: rings at the hub, and hears what is published there just now.

Run it with the certificate of a peer that the hub knows: `python doorbell.py HUB:7740 doorbell.crt doorbell.key ca.crt`
"""

import sys

from keyop import ConnectionLost, EphemeralMessenger, Message

hub, cert, key, ca = sys.argv[1:]


def on_answer(msg: Message[str]) -> None:
    print(f"doorbell: {msg.payload}", flush=True)


with EphemeralMessenger(hub, cert=cert, key=key, ca=ca) as m:
    m.subscribe("answers", on_answer)
    m.wait_connected()
    for line in sys.stdin:
        try:
            m.publish("rings", line.strip(), payload_type="com.example.ring.v1")
            print("doorbell: the hub has it on its disk", flush=True)
        except ConnectionLost:
            print("doorbell: nobody can know whether the hub has it", flush=True)
