"""What a message is: the envelope as one line of JSON, ids and times, payloads and their types, dead letters.

Knows neither files nor shared memory.
"""
