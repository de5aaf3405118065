"""Another program, with the Go program's habits, in a data directory of ours."""
