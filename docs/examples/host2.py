"""The client: publishes an alert each second, whether the hub is there or not. `Ctrl-C` ends it."""

import time

from pydantic import BaseModel

from keyop import Config, Messenger


class Alert(BaseModel):
    message: str
    count: int


config = Config(
    name="host2",
    storage={"data_dir": "host2"},
    client={"enabled": True, "hubs": [{"addr": "localhost:7740", "publish": ["alerts"]}]},
    tls={"cert": "host2.crt", "key": "host2.key", "ca": "ca.crt"},
)

with Messenger(config, federate=True) as m:
    m.register_payload_type("com.example.alert.v1", Alert)
    count = 0
    try:
        while True:
            count += 1
            alert = Alert(message="system problem", count=count)
            m.publish("alerts", alert, service_name="monitor")  # it is on this host's disk now
            print(f"host2: published #{count}", flush=True)
            time.sleep(1)
    except KeyboardInterrupt:
        pass
