"""What every process does to meet the writer: port, lease, tick, and the hand-over of transactions."""
