"""What the processes and the writer tell each other: entries of transactions and frames, answers, start options."""
