"""Worker processes: `loading` finds an app by its name, `worker` runs its handlers until it is told to leave, `command`
starts such processes, `reloading` starts them again when their source changes."""
