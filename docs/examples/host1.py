"""The hub: prints the alerts that host2 publishes. `Ctrl-C` ends it."""

from pydantic import BaseModel

from keyop import Config, Message, Messenger


class Alert(BaseModel):
    message: str
    count: int


config = Config(
    name="host1",
    storage={"data_dir": "host1"},
    hub={"enabled": True, "listen_addr": ":7740", "allowed_peers": [{"name": "host2"}]},
    tls={"cert": "host1.crt", "key": "host1.key", "ca": "ca.crt"},
)

with Messenger(config, federate=True) as m:
    m.register_payload_type("com.example.alert.v1", Alert)

    @m.subscribe("alerts", "worker-1", start="earliest")
    def on_alert(msg: Message[Alert]) -> None:
        alert = msg.payload
        print(f"host1: {alert.message} #{alert.count}, from {msg.service_name} on {msg.origin}", flush=True)

    print("host1: waiting for alerts", flush=True)
    m.run()
