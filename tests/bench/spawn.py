"""Starts processes at once and waits for them: `python -IS spawn.py`, jobs as JSON lines in, what they took out.

A process of its own, and a small one: Linux counts what the parent held when a child began among the child's most
(getrusage), so a parent with a test's modules loaded would be measured in its children's place.
"""

import json
import os
import sys
import time


def main() -> None:
    """A line has {argv, env, stderr} of each process, its answer what is printed below; times in Unix seconds."""
    for line in sys.stdin:
        jobs = json.loads(line)
        running = {}
        for number, job in enumerate(jobs):
            null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
            log = [
                (os.POSIX_SPAWN_OPEN, target, job["stderr"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                for target in (1, 2)
            ]
            start = time.time()
            pid = os.posix_spawn(job["argv"][0], job["argv"], job["env"], file_actions=[null, *log])
            running[pid] = (number, start)
        answers: list[object] = [None] * len(jobs)
        while running:
            pid, status, usage = os.wait4(-1, 0)
            number, start = running.pop(pid)
            answers[number] = {
                "start": start,
                "end": time.time(),
                "code": os.waitstatus_to_exitcode(status),
                "resident_mb": usage.ru_maxrss / 1024,
                "processor": usage.ru_utime + usage.ru_stime,
            }
        print(json.dumps(answers), flush=True)


main()
