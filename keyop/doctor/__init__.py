"""``keyop doctor``: what in this machine will hurt, with the way out.

Each check is a file with a function ``check(subject)``, which looks at one thing and returns what it found. They take
part in nothing and leave nothing behind: no writer is started, no directory made.
"""
