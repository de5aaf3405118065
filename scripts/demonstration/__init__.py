"""``./scripts/demo``: two hosts on one machine. What ``host1`` measures is handled on ``host2``, and alerts come back.

``__main__`` makes the place and tidies up, ``story`` is what happens there in order, ``hosts`` makes certificates and
configurations, ``cable`` is the connection that is cut, ``keeper`` runs a command of keyop as long as the demonstration
lives, ``crew`` is a child process and its lines, ``publish`` and ``work`` are what two of them run, ``sensors`` reads
/proc and /sys, ``account`` compares what was published with what became of it, ``comparison`` both directories.
"""

READINGS, READING_TYPE = "readings", "demo.reading.v1"
ALERTS, ALERT_TYPE = "alerts", "demo.alert.v1"
STEADY, SHAKY, ALARM = "display", "siren", "alarm"
"""The workers on host2, and who hears the alerts on host1."""
